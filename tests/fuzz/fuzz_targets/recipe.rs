//! A recipe, its last line also as an override.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::stages::Recipe;
use std::path::Path;

fuzz_target!(|text: &str| {
    let overrides: Vec<String> = text.lines().last().into_iter().map(str::to_owned).collect();
    for overrides in [&[][..], &overrides] {
        if let Ok(recipe) = Recipe::parse(text, Path::new("recipe.toml"), overrides) {
            assert_eq!(Recipe::parse(&recipe.canonical(), Path::new("again"), &[]).unwrap(), recipe);
        }
    }
});
