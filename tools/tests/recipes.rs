//! The recipes and sweeps that come with limbeck: each is one, bears its file's name, and sets nothing that does nothing.

use limbeck::stages::{Recipe, Sweep};
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

fn check(recipe: &Recipe, path: &Path) {
    assert_eq!(recipe.idle_settings(), Vec::<String>::new(), "{}", path.display());
}

#[test]
fn recipes_are_whole() {
    let recipes = files("recipes");
    assert!(recipes.len() >= 10, "{recipes:?}");
    for path in recipes {
        let recipe = Recipe::load(&path, &[]).unwrap();
        assert_eq!(Some(recipe.name.as_str()), path.file_stem().unwrap().to_str());
        check(&recipe, &path);
    }
}

#[test]
fn sweeps_are_whole() {
    let sweeps = files("sweeps");
    assert!(sweeps.len() >= 3, "{sweeps:?}");
    for path in sweeps {
        let sweep = Sweep::load(&path, &[]).unwrap();
        assert!(sweep.trials.len() > 1, "{}", path.display());
        sweep.trials.iter().for_each(|trial| check(&trial.recipe, &path));
    }
}
