//! Runs that are gone on with: settings that have changed since, files that were damaged.

use crate::fixture::{Folder, contents, flip_last_bit, refused, said, succeeds};
use std::fs;

/// Settings with which distillation saves a state after its first step, and diverges.
const DIVERGES: [&str; 4] =
    ["--set", "distill.train.learning_rate=1e30", "--set", "distill.train.checkpoint_every=1"];

#[test]
fn settings_of_a_stage_are_free_until_it_has_begun() {
    let folder = Folder::new();
    let resumed = |more: &[&str]| folder.run("model", "data", "run", &[&["--resume"], more].concat());
    succeeds(&mut folder.run("model", "data", "run", &[]));
    let recipe = fs::read(folder.path("run/recipe.toml")).unwrap();
    let baseline = contents(&folder.path("run/baseline"));
    let pruned = ["--set", "prune.heads=0.5"];
    let remove: Vec<String> = ["pruned", "distilled", "int8.limbeck"]
        .map(|name| folder.path(&format!("run/{name}")).display().to_string())
        .into();
    folder.refused(
        &mut resumed(&pruned),
        &[
            "a run of another recipe (\"small\"; prune.heads = 0 there, 0.5 here), which is kept; ",
            &format!("or remove {}, for --resume to make again with these", remove.join(", ")),
        ],
    );
    folder.refused(
        &mut resumed(&["--set", "quantize.weights=tensor"]),
        &[
            "quantize.weights = \"channel\" there, \"tensor\" here",
            "or remove ",
            "int8.limbeck, for --resume",
        ],
    );
    fs::remove_dir_all(folder.path("run/pruned")).unwrap();
    fs::remove_dir_all(folder.path("run/distilled")).unwrap();
    fs::remove_file(folder.path("run/int8.limbeck")).unwrap();
    // What the baseline depends on is still fixed, and what the others do is not.
    folder.refused(&mut resumed(&["--set", "data.limit=5"]), &["data.limit = 0 there, 5 here"]);
    succeeds(&mut resumed(&pruned));
    assert!(contents(&folder.path("run/baseline")) == baseline, "it is kept");
    assert_ne!(fs::read(folder.path("run/recipe.toml")).unwrap(), recipe);
    // The bytes are those of a run that had these settings from the beginning.
    succeeds(&mut folder.run("model", "data", "whole", &pruned));
    for file in ["recipe.toml", "run.json", "baseline/model.safetensors", "pruned/model.safetensors"] {
        let [found, expected] = ["run", "whole"].map(|run| fs::read(folder.path(run).join(file)).unwrap());
        assert!(found == expected, "{file}");
    }
    let [found, expected] = ["run", "whole"].map(|run| fs::read(folder.path(run).join("int8.limbeck")));
    assert!(found.unwrap() == expected.unwrap());
    folder.refused(&mut resumed(&[]), &["prune.heads = 0.5 there, 0 here"]);
}

#[test]
fn a_stage_that_diverged_names_its_own_keys_and_can_be_mended() {
    let folder = Folder::new();
    refused(
        &mut folder.run("model", "data", "run", &DIVERGES),
        &[
            "; lower distill.train.learning_rate, or raise distill.train.warmup, and go on with --resume",
            "; remove ",
            "run/state-distill first",
        ],
    );
    folder.refused(
        &mut folder.run("model", "data", "run", &["--resume"]),
        &[
            "distill.train.learning_rate = 1e30 there, 0.001 here",
            "or remove ",
            "state-distill, for --resume",
        ],
    );
    fs::remove_dir_all(folder.path("run/state-distill")).unwrap();
    succeeds(&mut folder.run("model", "data", "run", &["--resume"]));
    // The first stage has nothing behind it that would bind its keys.
    let mut first = folder.run("model", "data", "first", &["--set", "train.learning_rate=1e30"]);
    refused(&mut first, &["; lower train.learning_rate, or raise train.warmup, and go on with --resume"]);
    succeeds(&mut folder.run("model", "data", "first", &[]));
}

#[test]
fn a_damaged_state_is_told_from_a_whole_one() {
    let folder = Folder::new();
    refused(&mut folder.run("model", "data", "run", &DIVERGES), &["step "]);
    let entries = fs::read_dir(folder.path("run/state-distill")).unwrap().flatten();
    let path = entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("state-1."));
    let path = path.expect("the state after the first step");
    let whole = fs::read(&path).unwrap();
    let mend = "state-distill, for --resume to begin this stage again";
    let mut again = folder.run("model", "data", "run", &[&DIVERGES[..], &["--resume"]].concat());
    flip_last_bit(&path);
    folder.refused(&mut again, &["state-1.safetensors", "its hash differs", "; remove ", mend]);
    for cut in [&[][..], &whole[..100], &whole[..whole.len() - 1]] {
        fs::write(&path, cut).unwrap();
        folder.refused(&mut again, &["state-1.safetensors", "; remove ", mend]);
    }
    fs::remove_file(&path).unwrap();
    folder.refused(&mut again, &["state-1.safetensors: there is no such file; remove ", mend]);
    fs::write(folder.path("run/state-distill/state.json"), "{}").unwrap();
    folder.refused(&mut again, &["state.json", "; remove ", mend]);
    // The whole one is gone on with, and diverges as it did.
    fs::remove_dir_all(folder.path("run/state-distill")).unwrap();
    let output = again.output().unwrap();
    assert!(said(&output).starts_with("error: step "));
}

#[test]
fn another_teacher_does_not_go_on() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "first", &[]));
    let teacher = format!("distill.teacher={}", folder.path("first/baseline").display());
    let taught = [&DIVERGES[..], &["--set", &teacher]].concat();
    refused(&mut folder.run("model", "data", "run", &taught), &["step "]);
    let mut again = folder.run("model", "data", "run", &[&taught[..], &["--resume"]].concat());
    refused(&mut again, &["error: step "]);
    flip_last_bit(&folder.path("first/baseline/model.safetensors"));
    refused(&mut again, &["state.json: the training began from other weights", "put those weights back"]);
}

#[test]
fn damaged_artifacts_are_not_taken_over() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "run", &[]));
    let mut again = folder.run("model", "data", "run", &["--resume"]);
    let path = folder.path("run/int8.limbeck");
    let whole = fs::read(&path).unwrap();
    let mend = "int8.limbeck, for --resume to make again";
    flip_last_bit(&path);
    folder.refused(&mut again, &["int8.limbeck: the data are not those", " or remove ", mend]);
    for cut in [&[][..], &whole[..50], &whole[..whole.len() - 64]] {
        fs::write(&path, cut).unwrap();
        folder.refused(&mut again, &["int8.limbeck", " or remove ", mend]);
    }
    fs::remove_file(&path).unwrap();
    succeeds(&mut again);
    assert!(fs::read(&path).unwrap() == whole);
    // Classes are not among the weights, whose hash a child records.
    for (stage, [made, parent]) in
        [("baseline", ["pruned", "baseline"]), ("distilled", ["distilled", "pruned"])]
    {
        let config = folder.path(&format!("run/{stage}/config.json"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("\"bad\"", "\"worse\"")).unwrap();
        let problem = format!("run/{made}: its configuration is not that of ");
        folder.refused(
            &mut again,
            &[&problem, &format!("run/{parent}, from which it was made; put back"), " or remove "],
        );
        fs::write(&config, text).unwrap();
    }
    succeeds(&mut again);
    // With nothing there that was made from it, an artifact tells by itself.
    for (file, problem) in
        [("model.safetensors", "their hash differs"), ("vocab.txt", "its tokenizer is not")]
    {
        let _ = fs::remove_file(&path);
        let part = folder.path("run/distilled").join(file);
        let bytes = fs::read(&part).unwrap();
        match file {
            "vocab.txt" => {
                let text = fs::read_to_string(&part).unwrap();
                let mut lines: Vec<&str> = text.lines().collect();
                let last = lines.len() - 1;
                lines.swap(last - 1, last);
                fs::write(&part, lines.join("\n") + "\n").unwrap();
            }
            _ => flip_last_bit(&part),
        }
        folder.refused(&mut again, &[problem, " or remove ", "run/distilled", "for --resume to make again"]);
        fs::write(&part, bytes).unwrap();
    }
    succeeds(&mut again);
    assert!(fs::read(&path).unwrap() == whole);
}
