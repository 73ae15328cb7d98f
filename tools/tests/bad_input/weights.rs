//! Models: files that are missing, cut short, of another model, or full of nothing.

use crate::fixture::{Folder, succeeds, write_model};
use std::fs;
use std::path::Path;

fn damage(folder: &Folder, file: &str, content: &[u8]) {
    let _ = fs::remove_dir_all(folder.path("damaged"));
    write_model(&folder.path("damaged"), |_| ());
    fs::write(folder.path("damaged").join(file), content).unwrap();
}

/// Both commands that read a model directory must refuse it with these words.
#[track_caller]
fn refused(folder: &Folder, words: &[&str]) {
    folder.refused(&mut folder.predict("damaged", "a b"), words);
    folder.refused(&mut folder.run("damaged", "data", "out", &[]), words);
}

#[test]
fn the_model_works_if_nothing_is_wrong() {
    let folder = Folder::new();
    succeeds(&mut folder.predict("model", "a b"));
    succeeds(&mut folder.run("model", "data", "out", &[]));
}

#[test]
fn cut_and_lying_safetensors() {
    let folder = Folder::new();
    let weights = fs::read(folder.path("model/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap());
    let with_length = |length: u64| [&length.to_le_bytes(), &weights[8..]].concat();
    for content in [
        &weights[..weights.len() - 1],
        &weights[..100],
        &weights[..3],
        &[],
        &with_length(1 << 60),
        &with_length(u64::MAX),
        &with_length(header + 8),
        &with_length(0),
        &[&weights[..], b"more"].concat(),
    ] {
        damage(&folder, "model.safetensors", content);
        refused(&folder, &["damaged/model.safetensors", "; "]);
    }
}

#[test]
fn missing_files() {
    let folder = Folder::new();
    folder.refused(&mut folder.predict("nowhere", "a"), &["nowhere"]);
    folder.refused(
        &mut folder.run("nowhere", "data", "out", &[]),
        &["nowhere: there is no such model directory; "],
    );
    for (file, words) in [
        ("model.safetensors", ["model.safetensors: the file is missing", "; fetch the model again"]),
        ("config.json", ["damaged/config.json: there is no such file", "; check the path"]),
    ] {
        damage(&folder, "notes", b"");
        fs::remove_file(folder.path("damaged").join(file)).unwrap();
        refused(&folder, &words);
    }
    damage(&folder, "notes", b"");
    for entry in fs::read_dir(folder.path("damaged")).unwrap().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().contains("token") || name == *"vocab.txt" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    refused(&folder, &["damaged", "tokenizer.json", "; "]);
}

#[test]
fn tensors_that_are_missing_or_of_another_shape() {
    let folder = Folder::new();
    let path = folder.path("damaged");
    let tensor = "distilbert.transformer.layer.1.ffn.lin1.weight";
    write_model(&path, |tensors| tensors.retain(|(name, ..)| name != tensor));
    refused(
        &folder,
        &[
            "damaged/model.safetensors, tensor ",
            tensor,
            "; take the config.json that belongs to these weights",
        ],
    );

    fs::remove_dir_all(&path).unwrap();
    write_model(&path, |tensors| {
        let found = tensors.iter_mut().find(|(name, ..)| name == tensor).unwrap();
        *found = (tensor.to_owned(), vec![12, 7], vec![0.1; 84]);
    });
    refused(&folder, &["damaged/model.safetensors, tensor ", tensor, "[12, 7]", "[12, 8]", "; "]);
}

/// Where a tensor's data begin in the file.
fn place(file: &[u8], tensor: &str) -> usize {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = Folder::new();
    let tensor = "distilbert.transformer.layer.0.attention.v_lin.weight";
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let mut weights = fs::read(folder.path("model/model.safetensors")).unwrap();
        let place = place(&weights, tensor) + 4 * 5;
        weights[place..place + 4].copy_from_slice(&value.to_le_bytes());
        damage(&folder, "model.safetensors", &weights);
        refused(&folder, &["damaged/model.safetensors, tensor ", tensor, "; "]);
    }
}

#[test]
fn configurations_of_other_networks() {
    let folder = Folder::new();
    let config = fs::read_to_string(folder.path("model/config.json")).unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_str(&config).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    for (content, words) in [
        (changed(&|c| c["model_type"] = "gpt2".into()), &["gpt2", "distilbert", "bert"][..]),
        (
            changed(&|c| {
                ["model_type", "architectures"]
                    .iter()
                    .for_each(|key| drop(c.as_object_mut().unwrap().remove(*key)))
            }),
            &["model_type"],
        ),
        (changed(&|c| c["n_layers"] = 2_000_000_000_u64.into()), &["n_layers"]),
        (changed(&|c| c["dim"] = 16.into()), &["tensor", "[40, 8]"]),
        (changed(&|c| c["dim"] = 7.into()), &["7"]),
        (b"{\"model_type\":".to_vec(), &["line 1"]),
        (b"\xff\xfe".to_vec(), &[]),
        (Vec::new(), &[]),
    ] {
        damage(&folder, "config.json", &content);
        refused(&folder, &[words, &["damaged/"]].concat());
    }
}

#[test]
fn damaged_limbeck_files() {
    let folder = Folder::new();
    let export = |out: &Path| {
        let mut command = crate::fixture::limbeck(&["export", "--format", "limbeck"]);
        command.arg(folder.path("model")).arg(out);
        command
    };
    let path = folder.path("int8.limbeck");
    succeeds(&mut export(&path));
    succeeds(&mut folder.predict("int8.limbeck", "a b"));
    // Nothing is overwritten.
    folder.refused(&mut export(&path), &["int8.limbeck", "; "]);
    let whole = fs::read(&path).unwrap();
    for content in
        [&whole[..whole.len() - 64], &whole[..50], &[], &[&(1_u64 << 60).to_le_bytes(), &whole[8..]].concat()]
    {
        fs::write(&path, content).unwrap();
        folder.refused(&mut folder.predict("int8.limbeck", "a b"), &["int8.limbeck", "; "]);
    }
}
