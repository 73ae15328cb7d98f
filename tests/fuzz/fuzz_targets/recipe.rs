//! A recipe, its last line also as an override, and the same as a sweep.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::stages::{Recipe, Sweep};
use std::path::Path;

fuzz_target!(|text: &str| {
    let overrides: Vec<String> = text.lines().last().into_iter().map(str::to_owned).collect();
    for overrides in [&[][..], &overrides] {
        if let Ok(recipe) = Recipe::parse(text, Path::new("recipe.toml"), overrides) {
            assert_eq!(Recipe::parse(&recipe.canonical(), Path::new("again"), &[]).unwrap(), recipe);
        }
        if let Ok(sweep) = Sweep::parse(text, Path::new("sweep.toml"), overrides) {
            let again = Sweep::parse(sweep.canonical(), Path::new("again"), &[]).unwrap();
            assert_eq!(again.trials.len(), sweep.trials.len());
        }
    }
});
