//! Blocks that cannot be pruned as asked for.

use crate::fixture::Folder;

#[test]
fn keys_of_blocks_that_cannot_be_meant_are_wrong_use() {
    let folder = Folder::new();
    let before = folder.contents();
    for (set, words) in [
        (&["blocks=80"][..], "prune.blocks: is 80; it is a fraction, from 0 to 1 (60 % is 0.6)"),
        (
            &["block_shape=[16, 6]"],
            "prune.block_shape: is [16, 6]; [outputs, inputs], each one of [4, 8, 16, 32]",
        ),
        (&["block_importance=size"], "prune.block_importance: \"size\" is not one of its values; known: "),
        (
            &["block_scope=layers"],
            "prune.block_scope: \"layers\" is not one of its values; did you mean \"layer\"?",
        ),
        (&["block_matrices=head"], "prune.block_matrices: \"head\" is not one of its values; known: encoder"),
        (&["blocks=0.8", "weights=0.5"], "prune.weights: masks weights beside prune.blocks"),
        (
            &["blocks=0.8", "block_importance=movement"],
            "prune.block_importance: \"movement\" is watched while a network trains, and \"once\" trains nothing; ",
        ),
        (
            &["blocks=0.8", "block_importance=gradient"],
            "prune.block_importance: \"gradient\" is watched while a network trains, and \"once\" trains nothing; ",
        ),
        (
            &["blocks=0.8", "block_importance=movement", "schedule=cubic", "train.epochs=0"],
            "prune.schedule: \"cubic\" prunes while it trains, and [prune.train] trains nothing; ",
        ),
    ] {
        let set: Vec<String> = set.iter().map(|key| format!("prune.{key}")).collect();
        let typed: Vec<&str> = set.iter().flat_map(|key| ["--set", key]).collect();
        let output = folder.run("model", "data", "out", &typed).output().unwrap();
        let said = crate::fixture::said(&output);
        assert!(said.starts_with(&format!("error: {words}")), "{said:?} does not say {words:?}");
        assert_eq!(output.status.code(), Some(2), "what was typed is wrong: {said}");
        assert!(folder.contents() == before, "files have changed");
    }
}
