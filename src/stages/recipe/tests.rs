use super::*;
use crate::stages::Stage;

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    Recipe::parse(text, Path::new("test.toml"), &overrides)
}

fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).expect_err("must be refused").to_string()
}

#[test]
fn an_empty_recipe_is_the_default() {
    let recipe = parse("", &[]).unwrap();
    assert_eq!(recipe, Recipe::default());
    assert_eq!(recipe.prune.train.epochs, 1.0);
    assert_eq!(parse("[prune.train]\nbatch = 8", &[]).unwrap().prune.train.epochs, 1.0);
}

#[test]
fn the_canonical_text_reads_back_to_the_same_recipe() {
    let text = "name = 'x'\nseed = 7\n[data]\nlabels = ['a', 'b']\n[train]\nlearning_rate = 1e-4\nclip = 0.3";
    let recipe = parse(text, &["model.dropout=0.05"]).unwrap();
    let again = parse(&recipe.canonical(), &[]).unwrap();
    assert_eq!(again, recipe);
    assert_eq!(again.canonical(), recipe.canonical());
}

#[test]
fn a_key_that_does_nothing_does_not_make_another_recipe() {
    let plain = parse(
        "",
        &[
            "prune.vocabulary=0",
            "prune.positions=0",
            "prune.embedding_size=0",
            "prune.rank=0",
            "prune.share=0",
            "prune.rank_scope=matrix",
        ],
    )
    .unwrap();
    assert_eq!(plain.canonical(), Recipe::default().canonical());
    assert!(
        !["vocabulary", "embedding_size", "rank", "share"].iter().any(|key| plain.canonical().contains(key))
    );
    let structured = [
        "prune.rank=0.25",
        "prune.rank_scope=global",
        "prune.rank_matrices=feed-forward",
        "prune.share=3",
        "prune.share_start=first",
    ];
    let structured = parse("", &structured).unwrap();
    assert_eq!(parse(&structured.canonical(), &[]).unwrap(), structured);
    assert_ne!(structured.identity(Stage::Prune), plain.identity(Stage::Prune));
    let smaller = parse("", &["prune.vocabulary=12000"]).unwrap();
    assert_eq!(parse(&smaller.canonical(), &[]).unwrap(), smaller);
    assert_eq!(
        smaller.differences(&plain.canonical(), Stage::Prune),
        ["prune.vocabulary = unset there, 12000 here"]
    );
    assert_eq!(smaller.identity(Stage::Train), plain.identity(Stage::Train));
}

#[test]
fn precision_by_matrix_is_part_of_a_recipe_only_where_it_does_something() {
    let plain =
        parse("", &["quantize.budget=0.2", "quantize.samples=500", "quantize.exceptions={}"]).unwrap();
    assert_eq!(plain.canonical(), Recipe::default().canonical());
    let keys = ["quantize.exceptions={\"*.ffn.lin2.weight\"=\"channel\"}", "quantize.budget=1"];
    let other = parse("", &keys).unwrap();
    assert_eq!(other.quantize.exceptions["*.ffn.lin2.weight"], Form::Int8);
    // A name with dots is one name in quotes.
    let quoted = parse("", &["quantize.exceptions.\"*.ffn.lin2.weight\"=channel", "quantize.budget=1"]);
    assert_eq!(quoted.unwrap(), other);
    assert_eq!(parse(&other.canonical(), &[]).unwrap(), other);
    assert_eq!(other.identity(Stage::Distill), plain.identity(Stage::Distill));
    assert_ne!(other.identity(Stage::Quantize), plain.identity(Stage::Quantize));
    // Who is trained for it is another network.
    let trained = |keys: &[&str]| parse("", &[&["distill.quantized=0.5"], keys].concat()).unwrap();
    assert_ne!(trained(&keys).identity(Stage::Distill), trained(&[]).identity(Stage::Distill));
    let unmeasured = message("", &["quantize.weights=auto"]);
    assert!(
        unmeasured.contains("data.validation") && unmeasured.contains("hold out some rows"),
        "{unmeasured}"
    );
    let kind = message("", &["quantize.exceptions={\"a\"=\"int3\"}"]);
    assert!(kind.contains("quantize.exceptions") && kind.contains("int3"), "{kind}");
}

#[test]
fn stages_inherit_from_train_all_but_their_length() {
    let text =
        "[train]\nepochs = 5\nsteps = 9\nbatch = 16\nlearning_rate = 3e-4\n[distill.train]\nbatch = 64";
    let recipe = parse(text, &["train.precision=bf16"]).unwrap();
    assert_eq!(recipe.prune.train.batch, 16);
    assert_eq!(recipe.prune.train.epochs, 1.0);
    assert_eq!(recipe.prune.train.steps, 0);
    assert_eq!(recipe.prune.train.precision, TrainPrecision::Bf16);
    assert_eq!(recipe.distill.train.batch, 64);
    assert_eq!(recipe.distill.train.learning_rate, 3e-4);
    assert_eq!(recipe.distill.train.epochs, 2.0);
}

#[test]
fn overrides_are_toml_or_else_text() {
    let sets =
        ["data.limit=8000", "data.dir=../a b", "train.epochs=0.5", "data.text_columns=[2]", "data.train=a=b"];
    let recipe = parse("[data]\nlimit = 3", &sets).unwrap();
    assert_eq!(recipe.data.limit, 8000);
    assert_eq!(recipe.data.dir, "../a b");
    assert_eq!(recipe.train.epochs, 0.5);
    assert_eq!(recipe.data.text_columns, [Column::Number(2)]);
    assert_eq!(recipe.data.train, "a=b");
    assert_eq!(
        parse("", &["data.labels=[\"x\", \"y\"]"]).unwrap().data.labels,
        Labels::Names(vec!["x".into(), "y".into()])
    );
    assert_eq!(parse("", &["data.train=1\nseed=2"]).unwrap().seed, 1, "an override sets one key only");
}

#[test]
fn errors_name_the_key_and_the_mend() {
    for (text, set, expected) in [
        (
            "[train]\nlearnig_rate = 1",
            "",
            "train.learnig_rate: there is no such key; did you mean learning_rate?",
        ),
        ("", "dta.limit=1", "dta: there is no such key; did you mean data?"),
        ("", "prune.train.bach=1", "prune.train.bach: there is no such key; did you mean batch?"),
        (
            "[quantize]\nzzzzzzzz = 1",
            "",
            "quantize.zzzzzzzz: there is no such key; known here: weights, embeddings",
        ),
        (
            "",
            "prune.schedule=cubed",
            "prune.schedule: \"cubed\" is not one of its values; did you mean \"cubic\"?",
        ),
        (
            "",
            "prune.unit_importance=attention",
            "prune.unit_importance: \"attention\" is not one of its values; known: gradient, fisher, norm, random",
        ),
        ("", "prune.heads=60", "prune.heads: is 60; it is a fraction, from 0 to 1 (60 % is 0.6)"),
        ("", "train.learning_rate=nan", "train.learning_rate: is NaN; a number above 0"),
        ("", "distill.temperature=1e308", "distill.temperature: is 1e308; a number from 0.01 to 1000"),
        ("", "distill.temperature=1e-308", "distill.temperature: is 1e-308; a number from 0.01 to 1000"),
        ("", "train.eps=1e-300", "train.eps: is 1e-300; a number from 1e-30 to 1"),
        ("", "train.weight_decay=1e308", "train.weight_decay: is 1e308; a number from 0 to 1000"),
        ("", "prune.train.learning_rate=1e-300", "prune.train.learning_rate: is 1e-300; a number above 0"),
        ("", "train.clip=1e300", "train.clip: is 1e300; 0 for never, or a number above 0"),
        ("", "model.dropout=0.999999999", "model.dropout: is 0.999999999; from 0 to less than 1"),
        (
            "name = ''",
            "",
            "name: is \"\"; 1 to 100 letters (a to z), digits, '-', '_' and '.', not beginning",
        ),
        ("name = 'a\\b'", "", "name: is \"a\\\\b\"; 1 to 100 letters"),
        ("name = \"a\\nb\"", "", "name: is \"a\\nb\"; 1 to 100 letters"),
        ("", "name=../../esc", "name: is \"../../esc\"; "),
        ("", "name=/tmp/esc", "name: is \"/tmp/esc\"; "),
        ("", "name=.", "name: is \".\"; "),
        ("", "name=x-->y", "name: is \"x-->y\"; "),
        ("", "distill.train.batch=0", "distill.train.batch: is 0; a whole number from 1 to 1048576"),
        ("", "model.layers=1000000000", "model.layers: is 1000000000; a whole number from 1 to 1024"),
        ("", "model.hidden=1000000000000", "model.hidden: is 1000000000000; a whole number from 1 to 65536"),
        ("", "model.vocab=9", "model.vocab: is 9; a whole number from 32 to 16777216"),
        ("[model]\nhidden = 8192", "model.vocab=9999999", "model: its sizes make 8"),
        ("", "prune.events=1000000000000", "prune.events: is 1000000000000; a whole number from 1 to 65536"),
        ("", "train.epochs=1e300", "train.epochs: is 1e300; a number from 0 to 1000000"),
        (
            "",
            "train.epochs=99999999999999999999",
            "train.epochs: is 99999999999999999999; a number from 0 to",
        ),
        ("", "seed=18446744073709551615", "seed: is 18446744073709551615; whole numbers go from "),
        ("", "seed=-1", "seed: is -1; a whole number, 0 or more"),
        ("seed = 99999999999999999999", "", "test.toml, line 1: a whole number beyond 9223372036854775807; "),
        (
            "[data]\nsource = 'demo'",
            "data.max_tokens=300",
            "model.positions: is 256, less than data.max_tokens = 300",
        ),
        ("", "model.heads=5", "model.hidden: is 64, which 5 heads do not divide"),
        ("", "data", "data: has no value; write --set key=value"),
        ("[data]\nsource = 'demo'", "model.path=bert", "model.path: the demo makes its own texts"),
        ("[data]\nsource = 'demo'", "data.dir=texts", "data.dir: the demo makes its own texts"),
        (
            "[prune]\nschedule = 'cubic'\nheads = 0.5",
            "prune.head_importance=attention",
            "prune.head_importance: \"attention\" is measured before pruning",
        ),
        (
            "[prune]\nschedule = 'cubic'",
            "prune.train.epochs=0",
            "prune.schedule: \"cubic\" prunes while it trains, and [prune.train] trains nothing; use \"once\"",
        ),
        ("", "prune.blocks=80", "prune.blocks: is 80; it is a fraction, from 0 to 1"),
        ("", "prune.block=0.8", "prune.block: there is no such key; did you mean blocks?"),
        (
            "",
            "prune.block_shape=[16, 3]",
            "prune.block_shape: is [16, 3]; [outputs, inputs], each one of [4, 8, 16, 32]; [16, 4] is a register",
        ),
        ("", "prune.block_shape=[1000000000000, 4]", "prune.block_shape: is [1000000000000, 4]; "),
        ("", "prune.block_shape=[-16, 4]", "prune.block_shape: is -16; a whole number, 0 or more"),
        ("", "prune.block_shape=[16]", "prune.block_shape: invalid length 1"),
        ("", "prune.block_shape=16x4", "prune.block_shape: "),
        (
            "",
            "prune.block_importance=norm",
            "prune.block_importance: \"norm\" is not one of its values; known: ",
        ),
        (
            "",
            "prune.block_scope=matrx",
            "prune.block_scope: \"matrx\" is not one of its values; did you mean \"matrix\"?",
        ),
        (
            "",
            "prune.block_matrices=feed_forward",
            "prune.block_matrices: \"feed_forward\" is not one of its values; did you mean \"feed-forward\"?",
        ),
        (
            "[prune]\nblocks = 0.8",
            "prune.weights=0.5",
            "prune.weights: masks weights beside prune.blocks: a network's masks are of single weights or of blocks; set one of the two to 0",
        ),
        (
            "[prune]\nblocks = 0.8",
            "prune.block_importance=movement",
            "prune.block_importance: \"movement\" is watched while a network trains, and \"once\" trains nothing; use",
        ),
        (
            "[prune]\nblocks = 0.8\nheads = 0.5\nschedule = 'cubic'\nevents = 1",
            "prune.block_importance=movement",
            "prune.events: is 1, and \"movement\" of blocks is watched after heads and units are deleted; 2 or more",
        ),
        (
            "[prune]\nweights = 0.8",
            "prune.weight_importance=movement",
            "prune.weight_importance: \"movement\" is watched while a network trains, and \"once\" trains nothing; use",
        ),
        (
            "[prune]\nweights = 0.8\nunits = 0.5\nschedule = 'cubic'\nevents = 1",
            "prune.weight_importance=fisher",
            "prune.events: is 1, and \"fisher\" of weights is watched after heads and units are deleted; 2 or more",
        ),
        (
            "",
            "prune.weight_importance=gradient",
            "prune.weight_importance: \"gradient\" is not one of its values; known: magnitude, movement, fisher",
        ),
        (
            "",
            "prune.head_importance=block_fisher",
            "prune.head_importance: \"block_fisher\" is not one of its values; ",
        ),
        ("", "prune.hidden=25", "prune.hidden: is 25; it is a fraction, from 0 to 1 (60 % is 0.6)"),
        (
            "",
            "prune.hidden_importance=fisher",
            "prune.hidden_importance: \"fisher\" is not one of its values; known: gradient, norm, random",
        ),
        ("", "prune.rewind_to=1", "prune.rewind_to: is 1; from 0 to less than 1"),
        (
            "",
            "prune.rewind=weight",
            "prune.rewind: \"weight\" is not one of its values; did you mean \"weights\"?",
        ),
        (
            "[prune]\nschedule = 'iterative'",
            "prune.train.epochs=0",
            "prune.schedule: \"iterative\" prunes while it trains, and [prune.train] trains nothing; use \"once\"",
        ),
        (
            "[prune]\nschedule = 'iterative'\nheads = 0.5",
            "prune.head_importance=attention",
            "prune.head_importance: \"attention\" is measured before pruning, and \"iterative\" measures while",
        ),
        ("", "prune.vocabulary=99999999", "prune.vocabulary: is 99999999; a whole number from 0 to 16777216"),
        (
            "",
            "prune.positions=100",
            "prune.positions: is 100, less than data.max_tokens = 256; raise it, or lower",
        ),
        ("", "prune.embedding_size=99999", "prune.embedding_size: is 99999; a whole number from 0 to 65536"),
        ("", "prune.rank=64", "prune.rank: is 64; it is a fraction, from 0 to 1 (60 % is 0.6)"),
        ("", "prune.rank=nan", "prune.rank: is NaN; it is a fraction"),
        ("", "prune.ranks=0.5", "prune.ranks: there is no such key; did you mean rank?"),
        (
            "",
            "prune.rank_scope=layer",
            "prune.rank_scope: \"layer\" is not one of its values; known: matrix, global",
        ),
        (
            "",
            "prune.rank_matrices=head",
            "prune.rank_matrices: \"head\" is not one of its values; known: encoder, attention, feed-forward",
        ),
        ("", "prune.share=0.5", "prune.share: invalid type: floating point `0.5`, expected a whole number"),
        ("", "prune.share=9999", "prune.share: is 9999; a whole number from 0 to 1024"),
        (
            "",
            "prune.share_start=last",
            "prune.share_start: \"last\" is not one of its values; known: mean, first",
        ),
        ("", "prune.vocabulary=-1", "prune.vocabulary: is -1; a whole number, 0 or more"),
        ("", "prune.layers=3", "prune.layers: is 3; it is a fraction, from 0 to 1"),
        (
            "[prune]\nlayers = 0.5",
            "prune.keep_layers=[0, 2]",
            "prune.layers: is a fraction, and prune.keep_layers says which layers stay; give one of the two",
        ),
        ("", "prune.keep_layers=[2, 0]", "prune.keep_layers: is [2, 0]; ascending, each layer once"),
        ("", "prune.keep_layers=[-1]", "prune.keep_layers: is -1; a whole number, 0 or more"),
        (
            "",
            "prune.layer_importance=first",
            "prune.layer_importance: \"first\" is not one of its values; known: gradient, uniform, last, random",
        ),
        ("", "distill.hidden=-1", "distill.hidden: is -1; a number from 0 to 1000000"),
        ("", "distill.cosine=nan", "distill.cosine: is NaN; a number from 0 to 1000000"),
        ("", "distill.attention=inf", "distill.attention: is inf; a number from 0 to 1000000"),
        ("", "distill.relation_heads=0", "distill.relation_heads: is 0; a whole number from 1 to 4096"),
        ("", "distill.relation=1", "distill.relation: there is no such key; did you mean relations?"),
        (
            "",
            "distill.layer_map=unifrom",
            "distill.layer_map: expected \"original\", \"uniform\", \"last\", \"search\", or a list",
        ),
        ("", "distill.layer_map=[]", "distill.layer_map: is an empty list; name pairs of layers"),
        ("", "distill.layer_map=[[0, 1, 2]]", "distill.layer_map: expected \"original\""),
        ("", "distill.teacher=[]", "distill.teacher: is empty; \"baseline\", or the path of a model"),
        (
            "",
            "distill.teacher=3",
            "distill.teacher: expected \"baseline\", the path of a model, or a list of these",
        ),
        (
            "[distill]\nteacher = ['baseline', 'b']",
            "distill.teacher_weights=[1]",
            "distill.teacher_weights: has 1 weights for 2 teachers; give one for each, or none",
        ),
        ("", "distill.teacher_weights=[0]", "distill.teacher_weights: is 0; a number above 0"),
        ("seed = 3", "seed.x=1", "seed.x: seed is a value, not a table"),
    ] {
        let sets: &[&str] = if set.is_empty() { &[] } else { &[set] };
        let found = message(text, sets);
        assert!(found.starts_with(expected), "{found:?} should start with {expected:?}");
    }
}

#[test]
fn what_a_schedule_does_not_use_does_not_matter() {
    parse("[prune]\nhead_importance = 'attention'\nheads = 0.5", &["prune.train.epochs=0"]).unwrap();
    parse("[prune]\nhead_importance = 'attention'", &["prune.schedule=cubic"]).unwrap();
    parse("[prune]\nblock_importance = 'movement'", &["prune.weights=0.5"]).unwrap();
    parse("[prune]\nschedule = 'cubic'", &["prune.train.epochs=0", "prune.train.steps=9"]).unwrap();
    // Only the demo makes an encoder with so many positions.
    parse("", &["data.max_tokens=512"]).unwrap();
}

#[test]
fn wrong_kinds_name_the_key() {
    for (set, key) in [
        ("train.batch=many", "train.batch"),
        ("seed=-1", "seed"),
        ("data.label_column=1.5", "data.label_column"),
        ("train=3", "train"),
    ] {
        let found = message("", &[set]);
        assert!(found.starts_with(&format!("{key}: ")), "{found:?} should name {key}");
    }
}

#[test]
fn broken_toml_names_the_file_and_the_line() {
    let found = message("name = 'x'\n\n[train\nbatch = 1", &[]);
    assert!(found.starts_with("test.toml, line 3: "), "{found}");
}
