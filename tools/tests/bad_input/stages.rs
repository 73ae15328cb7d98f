//! What a stage is given by another stage, another run or another model.

use crate::fixture::{Folder, Named, flip_last_bit, refused, succeeds, write_model};
use std::fs;

/// Changes the text of a file, which must hold `from`.
fn edit(folder: &Folder, name: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.path(name)).unwrap();
    assert!(text.contains(from), "{name}: {text}");
    fs::write(folder.path(name), text.replace(from, to)).unwrap();
}

#[test]
fn a_teacher_of_another_task_is_refused() {
    let folder = Folder::new();
    let run = |teacher: &str, out: &str| {
        let teacher = format!("distill.teacher={}", folder.path(teacher).display());
        folder.run("model", "data", out, &["--set", &teacher])
    };
    succeeds(&mut run("model", "taught"));
    for name in ["names", "order", "pieces"] {
        write_model(&folder.path(name), |_| ());
    }
    edit(&folder, "names/config.json", "\"bad\"", "\"worse\"");
    edit(&folder, "order/config.json", "\"bad\"", "\"-\"");
    edit(&folder, "order/config.json", "\"good\"", "\"bad\"");
    edit(&folder, "order/config.json", "\"-\"", "\"good\"");
    edit(&folder, "pieces/vocab.txt", "\nq\n", "\nz\n");
    write_model(&folder.path("headless"), |tensors: &mut Vec<Named>| {
        tensors.retain(|(name, ..)| name != "classifier.weight");
    });
    write_model(&folder.path("short"), |tensors| {
        let positions = tensors.iter_mut().find(|(name, ..)| name.contains("position")).unwrap();
        positions.1[0] = 9;
        positions.2.truncate(9 * positions.1[1]);
    });
    edit(&folder, "short/config.json", "\"max_position_embeddings\": 16", "\"max_position_embeddings\": 9");
    for (teacher, words) in [
        ("nothing", &["distill.teacher: ", "nothing: there is no such model directory; "][..]),
        ("names", &["/names: its classes are [\"worse\", \"good\"], those of the data"]),
        ("order", &["/order: its classes are [\"good\", \"bad\"]", "same order"]),
        (
            "headless",
            &[
                "distill.teacher: ",
                "headless/model.safetensors, tensor classifier.weight",
                "train a head first",
            ],
        ),
        ("short", &["/short: it reads 9 tokens, and data.max_tokens is 12"]),
    ] {
        let before = folder.contents();
        refused(&mut run(teacher, "out"), words);
        assert!(!folder.path("out/metrics.jsonl").exists(), "told before the first step");
        let _ = fs::remove_dir_all(folder.path("out"));
        assert!(folder.contents() == before, "files have changed");
    }
    // Of another vocabulary its logits can be learnt, by texts as it reads them, and its layers not.
    let teacher = format!("distill.teacher={}", folder.path("pieces").display());
    let mut run = folder.run("model", "data", "out", &["--set", &teacher, "--set", "distill.hidden=1"]);
    refused(
        &mut run,
        &["/pieces: its tokenizer is not that of the model, and its layers are compared", "distill.hidden"],
    );
    let _ = fs::remove_dir_all(folder.path("out"));
    succeeds(&mut folder.run("model", "data", "own", &["--set", &teacher]));
    // Nor is one taken whose logits are there already.
    edit(&folder, "model/config.json", "\"bad\"", "\"worse\"");
    fs::remove_dir_all(folder.path("taught/distilled")).unwrap();
    let teacher = format!("distill.teacher={}", folder.path("model").display());
    let mut again = folder.run("model", "data", "taught", &["--resume", "--set", &teacher]);
    folder.refused(&mut again, &["/model: its classes are"]);
}

#[test]
fn what_there_is_not_is_refused_before_the_first_step() {
    let folder = Folder::new();
    for (sets, words) in [
        (
            &["prune.keep_layers=[0, 2]"][..],
            "prune.keep_layers: there is no layer 2: the baseline has 2, counted from 0; name layers below 2",
        ),
        (
            &["prune.share=3"],
            "prune.share: is 3, and there are 2 layers; choose another number, or 0 to share nothing",
        ),
        (
            &["prune.share=2", "prune.layers=0.5"],
            "prune.share: is 2, and 1 of 2 layers stay; choose another number, or 0 to share nothing",
        ),
        (
            &["prune.layers=0.5", "distill.layer_map=[[0, 1], [1, 1]]"],
            "distill.layer_map: there is no layer 1: the student has 1, counted from 0; [student, teacher]",
        ),
        (
            &["distill.relation_layers=[1, 7]"],
            "distill.relation_layers: there is no layer 7: the teacher has 2, counted from 0",
        ),
        (
            &["distill.train.precision=f16"],
            "distill.train.precision: the CPU does not train in f16; use \"bf16\" or \"f32\"",
        ),
        // Which matrices become factors is not known yet, but not how they could be called.
        (
            &["prune.rank=0.5", "quantize.exceptions.\"*.ffn.lin3.*\"=int4"],
            "quantize.exceptions: \"*.ffn.lin3.*\" is no matrix and no table of this network",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let before = folder.contents();
        refused(&mut folder.run("model", "data", "out", &sets), &[words]);
        assert!(!folder.path("out/metrics.jsonl").exists(), "told before the first step");
        let _ = fs::remove_dir_all(folder.path("out"));
        assert!(folder.contents() == before, "files have changed");
    }
}

#[test]
fn a_width_below_that_of_the_word_table_is_refused_before_the_first_step() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "factored", &["--set", "prune.embedding_size=3"]));
    let before = folder.contents();
    let narrow = |out: &str, hidden: &str| folder.run("factored/distilled", "data", out, &["--set", hidden]);
    let words =
        "prune.hidden: leaves 2 of 8 features, and the model's word table has rows of 3; leave 4 or more";
    refused(&mut narrow("out", "prune.hidden=0.7"), &[words]);
    assert!(!folder.path("out/metrics.jsonl").exists(), "told before the first step");
    let _ = fs::remove_dir_all(folder.path("out"));
    assert!(folder.contents() == before, "files have changed");
    succeeds(&mut narrow("narrow", "prune.hidden=0.5"));
}

#[test]
fn a_run_goes_on_with_what_can_change_nothing_and_with_the_kernels_it_had() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "run", &[]));
    let mut other = folder.run("model", "data", "run", &["--resume", "--set", "bench.repeat=2"]);
    succeeds(other.args(["--set", "name=other", "--set", "train.checkpoint_every=1"]));
    let text = fs::read_to_string(folder.path("run/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kernels = record["kernels"].as_str().unwrap();
    edit(&folder, "run/run.json", &format!("\"{kernels}\""), "\"abacus\"");
    // All is done: nothing is computed with them.
    succeeds(&mut folder.run("model", "data", "run", &["--resume"]));
    fs::remove_file(folder.path("run/int8.limbeck")).unwrap();
    folder.refused(
        &mut folder.run("model", "data", "run", &["--resume"]),
        &["a run of the abacus kernels", kernels, "LIMBECK_ISA=abacus"],
    );
}

#[test]
fn a_stage_of_its_own_needs_the_kernels_of_the_run() {
    let folder = Folder::new();
    let stage = |stage: &str| folder.stage(stage, "model", "data", "run", &[]);
    succeeds(&mut stage("train"));
    let text = fs::read_to_string(folder.path("run/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kernels = format!("\"{}\"", record["kernels"].as_str().unwrap());
    edit(&folder, "run/run.json", &kernels, "\"abacus\"");
    folder.refused(&mut stage("prune"), &["a run of the abacus kernels", "LIMBECK_ISA=abacus"]);
    edit(&folder, "run/run.json", "\"abacus\"", &kernels);
    succeeds(&mut stage("prune"));
}

#[test]
fn a_classifier_of_other_classes_is_set_aside_and_said_to_be() {
    let folder = Folder::new();
    let said = |out: &str, more: &[&str]| {
        let output = succeeds(&mut folder.stage("train", "model", "data", out, more));
        String::from_utf8(output.stderr).unwrap()
    };
    let words = "the model's classifier is of the classes [\"bad\", \"good\"]";
    assert!(!said("same", &[]).contains(words), "its classes are those of the data");
    let other = said("other", &["--set", "data.labels=[\"no\", \"yes\"]"]);
    let rest = ", those of the data are [\"no\", \"yes\"]: a new one is trained";
    assert!(other.contains(&format!("{words}{rest}")), "{other}");
    // An encoder has no classifier to lose.
    fs::remove_dir_all(folder.path("model")).unwrap();
    write_model(&folder.path("model"), |tensors| {
        tensors.retain(|(name, ..)| !name.starts_with("classifier."));
    });
    let bare = said("bare", &["--set", "data.labels=[\"no\", \"yes\"]"]);
    assert!(!bare.contains("the model's classifier"), "{bare}");
}

#[test]
fn a_stage_that_was_made_from_another_is_refused() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "run", &[]));
    succeeds(&mut folder.run("model", "data", "other", &["--seed", "9"]));
    for (stage, later) in [("baseline", "pruned"), ("pruned", "distilled"), ("distilled", "int8.limbeck")] {
        fs::rename(folder.path(&format!("run/{stage}")), folder.path("kept")).unwrap();
        fs::rename(folder.path(&format!("other/{stage}")), folder.path(&format!("run/{stage}"))).unwrap();
        let made = format!("run/{later}: it was made from another {stage} than ");
        let mut again = folder.run("model", "data", "run", &["--resume"]);
        // Pruned weights that were swapped are already another baseline's.
        let made = if stage == "baseline" { made } else { "it was made from another ".to_owned() };
        folder.refused(&mut again, &[&made, "int8.limbeck, for --resume to make again"]);
        fs::rename(folder.path(&format!("run/{stage}")), folder.path(&format!("other/{stage}"))).unwrap();
        fs::rename(folder.path("kept"), folder.path(&format!("run/{stage}"))).unwrap();
    }
    succeeds(&mut folder.run("model", "data", "run", &["--resume"]));
}

#[test]
fn a_stage_that_was_damaged_is_an_error_of_the_next() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "run", &[]));
    fs::remove_file(folder.path("run/int8.limbeck")).unwrap();
    fs::remove_dir_all(folder.path("run/distilled")).unwrap();
    write_model(&folder.path("run/distilled"), |tensors| {
        let (_, shape, values) = tensors.iter_mut().find(|(name, ..)| name == "classifier.weight").unwrap();
        shape[1] -= 1;
        values.truncate(shape[0] * shape[1]);
    });
    folder.refused(
        &mut folder.run("model", "data", "run", &["--resume"]),
        &["distilled/model.safetensors, tensor classifier.weight: its shape is [2, 7]"],
    );
}

#[test]
fn what_was_exchanged_or_damaged_between_two_stages_is_refused() {
    let folder = Folder::new();
    let stage = |stage: &str| folder.stage(stage, "model", "data", "run", &[]);
    succeeds(&mut stage("train"));
    edit(&folder, "data/train.csv", "d e", "d f");
    let words = ["run/baseline: it was trained on other texts than data.train has now", "put the data back"];
    refused(&mut stage("prune"), &words);
    edit(&folder, "data/train.csv", "d f", "d e");
    edit(&folder, "model/vocab.txt", "\nq\n", "\nz\n");
    refused(&mut stage("prune"), &["run/baseline: it reads by another tokenizer than model.path has now"]);
    edit(&folder, "model/vocab.txt", "\nz\n", "\nq\n");
    for (name, reads) in [
        ("prune", &["run/baseline"][..]),
        ("distill", &["run/baseline", "run/pruned"]),
        ("quantize", &["run/distilled"]),
    ] {
        for artifact in reads {
            flip_last_bit(&folder.path(artifact).join("model.safetensors"));
            refused(&mut stage(name), &["put it back as it was, or remove ", artifact]);
            flip_last_bit(&folder.path(artifact).join("model.safetensors"));
        }
        succeeds(&mut stage(name));
    }
}
