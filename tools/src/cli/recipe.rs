//! The recipe that was typed: a file, or the demo's, with `--set` and the flags on top.

use super::{DataOptions, StageOptions};
use crate::failure::Failure;
use limbeck::stages::Recipe;
use std::path::{Path, PathBuf};

/// The recipe of `limbeck run` without a recipe.
const DEMO: &str = include_str!("../../recipes/demo.toml");

/// The keys that say what a table of texts is. Its classes are the model's.
const USED: [&str; 8] = [
    "data.format",
    "data.header",
    "data.label_column",
    "data.text_columns",
    "data.second_columns",
    "data.first_label",
    "data.test_limit",
    "data.max_tokens",
];

impl StageOptions {
    /// The recipe with everything that was typed applied: the file, then `--set`, then the flags.
    ///
    /// # Errors
    /// Those of [`Recipe::load`]; wrong use, if it was typed rather than in the file: what is refused with all that
    /// was typed, and would not be without; a path that is not UTF-8.
    pub fn recipe(&self, file: Option<&Path>) -> Result<Recipe, Failure> {
        let mut assignments = with_paths(&self.set, self.model.as_deref(), self.data.as_deref())?;
        assignments.extend(self.seed.map(|seed| format!("seed={seed}")));
        assignments.extend(self.common.threads.map(|threads| format!("threads={threads}")));
        let read = |assignments: &[String]| match file {
            Some(path) => Recipe::load(path, assignments),
            None => Recipe::parse(DEMO, "the demo's recipe".as_ref(), assignments),
        };
        read(&assignments).map_err(|error| match read(&[]) {
            Ok(_) => Failure::Usage(error.to_string()),
            Err(_) => error.into(),
        })
    }

    /// The run's directory.
    pub fn out(&self, recipe: &Recipe) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name))
    }
}

impl DataOptions {
    /// A recipe of which only `[data]` matters, its test file being the one typed.
    ///
    /// # Errors
    /// Wrong use: those of [`Recipe::parse`], all of it being typed, a key that is not used, and a path that is not
    /// UTF-8.
    pub fn recipe(&self) -> Result<Recipe, Failure> {
        let usage = |error: limbeck::Error| Failure::Usage(error.to_string());
        // By itself, so that a key that does not exist is said to be so.
        Recipe::parse("", "--set".as_ref(), &self.set).map_err(usage)?;
        let keys =
            self.set.iter().filter_map(|assignment| assignment.split_once('=')).map(|(key, _)| key.trim());
        if let Some(key) = keys.into_iter().find(|key| !USED.contains(key)) {
            let used = USED.join(", ");
            return Err(Failure::Usage(format!(
                "--set {key}: this command does not use this key; it uses {used}"
            )));
        }
        let mut assignments = self.set.clone();
        match (self.data.is_dir(), self.data.parent(), self.data.file_name()) {
            (false, Some(folder), Some(file)) => {
                assignments.push(text_assignment("data.dir", folder)?);
                assignments.push(text_assignment("data.test", Path::new(file))?);
            }
            _ => assignments.push(text_assignment("data.dir", &self.data)?),
        }
        Recipe::parse("", "--data".as_ref(), &assignments).map_err(usage)
    }
}

/// What `--set`, `--model` and `--data` say, in this order.
///
/// # Errors
/// A path that is not UTF-8.
pub fn with_paths(set: &[String], model: Option<&Path>, data: Option<&Path>) -> Result<Vec<String>, Failure> {
    let paths = [("model.path", model), ("data.dir", data)];
    let paths = paths.into_iter().filter_map(|(key, path)| Some(text_assignment(key, path?)));
    set.iter().cloned().map(Ok).chain(paths).collect()
}

/// `key="path"`, quoted as TOML, so that a folder named `2024` stays a text.
fn text_assignment(key: &str, path: &Path) -> Result<String, Failure> {
    let Some(text) = path.to_str() else {
        return Err(Failure::Usage(format!("{}: the path is not UTF-8; rename it", path.display())));
    };
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '"' => quoted.extend(['\\', c]),
            _ if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            _ => quoted.push(c),
        }
    }
    Ok(format!("{key}=\"{quoted}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Run};
    use clap::Parser;

    fn options(arguments: &[&str]) -> Run {
        let typed = ["limbeck", "run"].iter().chain(arguments);
        match Cli::try_parse_from(typed).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_override_sets_and_paths_stay_text() {
        let run = options(&[
            "--set",
            "seed=3",
            "--set",
            "data.limit=9",
            "--seed",
            "5",
            "--data",
            "20\"24\n\u{7f}\\",
            "--threads",
            "2",
        ]);
        // The demo would refuse --data and --model.
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/agnews.toml");
        let recipe = run.options.recipe(Some(&file)).unwrap();
        assert_eq!((recipe.seed, recipe.data.limit, recipe.threads), (5, 9, 2));
        assert_eq!(recipe.data.dir, "20\"24\n\u{7f}\\");
        assert_eq!(run.options.out(&recipe), Path::new("runs/agnews"));
        assert_eq!(options(&["--model", "2024"]).options.recipe(Some(&file)).unwrap().model.path, "2024");
        let demo = options(&[]).options;
        assert_eq!(demo.out(&demo.recipe(None).unwrap()), Path::new("runs/demo"));
        assert!(options(&["--data", "2024"]).options.recipe(None).is_err());
    }

    #[test]
    fn a_data_file_is_a_folder_and_a_name() {
        let data = DataOptions { data: "some/where/news.tsv".into(), set: vec!["data.header=true".into()] };
        let recipe = data.recipe().unwrap();
        assert_eq!((recipe.data.dir.as_str(), recipe.data.test.as_str()), ("some/where", "news.tsv"));
        assert!(recipe.data.header);
    }

    #[test]
    fn every_recipe_reads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let mut found = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let recipe = Recipe::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), recipe.name);
            found += 1;
        }
        assert!(found >= 3);
    }
}
