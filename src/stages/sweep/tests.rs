use super::*;

fn parse(text: &str, overrides: &[&str]) -> Result<Sweep> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    Sweep::parse(text, "sweep.toml".as_ref(), &overrides)
}

fn ids(sweep: &Sweep) -> Vec<&str> {
    sweep.trials.iter().map(|trial| trial.id.as_str()).collect()
}

#[test]
fn a_grid_is_every_combination_with_every_seed() {
    let text = "[prune]\nschedule = 'once'\n[sweep]\nseeds = [1, 2]\n[sweep.grid]\n'prune.heads' = [0.2, 0.4]\n\
                prune.block_shape = [[16, 4], [32, 4]]\n";
    let sweep = parse(text, &["distill.alpha=0.5"]).unwrap();
    let settings = ["16x4_heads-0.2", "16x4_heads-0.4", "32x4_heads-0.2", "32x4_heads-0.4"];
    let expected: Vec<String> = [1, 2]
        .iter()
        .flat_map(|seed| settings.iter().map(move |name| format!("block_shape-{name}_seed-{seed}")))
        .collect();
    assert_eq!(ids(&sweep), expected);
    for trial in &sweep.trials {
        let heads = if trial.id.contains("0.4") { 0.4 } else { 0.2 };
        let recipe = &trial.recipe;
        assert_eq!((recipe.prune.heads, recipe.distill.alpha, recipe.seed), (heads, 0.5, trial.seed));
        assert_eq!((&recipe.name, recipe.prune.block_shape[0] == 32), (&trial.id, trial.id.contains("32x4")));
    }
    // What is kept of it makes the same trials.
    let again = parse(sweep.canonical(), &[]).unwrap();
    assert_eq!((ids(&again), again.canonical()), (ids(&sweep), sweep.canonical()));
    assert!(again.trials.iter().zip(&sweep.trials).all(|(a, b)| a.recipe == b.recipe));
}

#[test]
fn draws_stay_when_a_sweep_grows() {
    let text = "[sweep]\ntrials = 3\n[sweep.random]\n'distill.alpha' = { low = 0.3, high = 1.0 }\n";
    let few = parse(text, &[]).unwrap();
    let more = parse(text, &["sweep.trials=40"]).unwrap();
    assert_eq!(ids(&more)[..3], ids(&few));
    let other = parse(text, &["sweep.seed=2"]).unwrap();
    assert_ne!(ids(&other), ids(&few));
    let wide =
        parse(text, &["sweep.random.train.learning_rate={ low = 1e-5, high = 1e-3, scale = \"log\" }"]);
    let wide = wide.unwrap();
    for (wide, few) in wide.trials.iter().zip(&few.trials) {
        assert_eq!(wide.recipe.distill.alpha, few.recipe.distill.alpha, "another key changes no draw");
        assert!((1e-5..=1e-3).contains(&wide.recipe.train.learning_rate));
    }
    let values: Vec<f64> = more.trials.iter().map(|trial| trial.recipe.distill.alpha).collect();
    assert!(values.iter().all(|value| (0.3..=1.0).contains(value)));
    let mean = values.iter().sum::<f64>() / 40.0;
    // Uniform: the mean's standard deviation is 0.7 / √(12 · 40) = 0.032.
    assert!((mean - 0.65).abs() <= 0.13, "{mean}");
    // The name holds the very value.
    let named = |trial: &Trial| trial.id.contains(&format!("alpha-{}_", trial.recipe.distill.alpha));
    assert!(more.trials.iter().all(named), "{:?}", ids(&more));
}

#[test]
fn whole_ranges_and_choices_are_drawn_to_their_ends() {
    let text = "[sweep]\ntrials = 60\n[sweep.random]\n'prune.events' = { low = 2, high = 4 }\n\
                'prune.schedule' = ['once', 'cubic']\n";
    let sweep = parse(text, &[]).unwrap();
    // Equal draws are one trial.
    assert_eq!(sweep.trials.len(), 6, "{:?}", ids(&sweep));
}

#[test]
fn names_stay_apart_and_short() {
    let text =
        "[sweep.grid]\n'train.batch' = [8]\n'distill.train.batch' = [16]\n'data.dir' = ['a/b', 'a b']\n";
    let sweep = parse(text, &[]).unwrap();
    let found = ids(&sweep);
    assert!(found[0].starts_with("dir-a-b-") && found[0] != found[1], "{found:?}");
    assert!(found[0].ends_with("_distill.train.batch-16_train.batch-8_seed-1"), "{found:?}");
    let long = format!("[sweep.grid]\n'data.dir' = ['{}', '{}y']\n", "x".repeat(300), "x".repeat(300));
    let long = parse(&long, &[]).unwrap();
    assert!(long.trials.len() == 2 && long.trials.iter().all(|trial| trial.id.len() <= 100));
    let alone = parse("name = 'news'\n[sweep]\nseeds = [4, 5]", &[]).unwrap();
    assert_eq!(ids(&alone), ["news_seed-4", "news_seed-5"]);
}

#[test]
fn a_base_is_read_beside_the_file_and_overlaid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.toml"), "name = 'base'\n[train]\nbatch = 9\nepochs = 3").unwrap();
    let file = folder.path().join("sweep.toml");
    let text = "[sweep]\nbase = 'base.toml'\n[train]\nepochs = 4\n[sweep.grid]\n'prune.heads' = [0.5]";
    std::fs::write(&file, text).unwrap();
    let sweep = Sweep::load(&file, &[]).unwrap();
    let recipe = &sweep.trials[0].recipe;
    assert_eq!((recipe.train.batch, recipe.train.epochs, recipe.prune.heads), (9, 4.0, 0.5));
    assert_eq!(sweep.recipe.name, "base");
    assert!(!sweep.canonical().contains("base.toml"));
    std::fs::write(folder.path().join("base.toml"), "[sweep]").unwrap();
    let error = Sweep::load(&file, &[]).unwrap_err().to_string();
    assert!(error.starts_with("sweep.base: ") && error.contains("is a sweep itself"), "{error}");
}

#[test]
fn an_ablation_removes_what_is_in_use() {
    let text = "[prune]\nheads = 0.5\n[distill]\nalpha = 0\n[sweep]\nablate = true\nseeds = [1, 2]";
    let sweep = parse(text, &[]).unwrap();
    assert!(sweep.ablation);
    let names = [
        "whole",
        "without-heads",
        "without-importance",
        "without-distillation",
        "without-channel-scales",
        "without-small-embeddings",
        "without-quantization",
    ];
    let expected: Vec<String> =
        [1, 2].iter().flat_map(|seed| names.iter().map(move |name| format!("{name}_seed-{seed}"))).collect();
    assert_eq!(ids(&sweep), expected);
    assert_eq!((sweep.trials[1].recipe.prune.heads, sweep.trials[0].recipe.prune.heads), (0.0, 0.5));
}

#[test]
fn errors_name_the_key_and_the_trial() {
    let grid = |line: &str| format!("[sweep.grid]\n{line}");
    let random = |line: &str| format!("[sweep]\ntrials = 2\n[sweep.random]\n{line}");
    for (text, expected) in [
        (String::new(), "sweep: there is nothing to try; give [sweep.grid]"),
        ("[sweep]\ntrails = 3".into(), "sweep.trails: there is no such key; did you mean trials?"),
        (
            grid("'prune.heads' = 0.2"),
            "sweep.grid.prune.heads: is no list of values; a list of values, as [0.2]",
        ),
        (grid("'prune.heads' = []"), "sweep.grid.prune.heads: is an empty list of values"),
        (
            grid("'prune.heds' = [0.2]"),
            "prune.heds: there is no such key (in trial heds-0.2_seed-1); did you mean",
        ),
        (
            grid("'prune.heads' = [0.2, 60]"),
            "prune.heads: is 60 (in trial heads-60_seed-1); it is a fraction",
        ),
        (grid("seed = [1, 2]"), "sweep.grid.seed: is no setting of a trial; list seeds in sweep.seeds"),
        (grid("name = ['x']"), "sweep.grid.name: is no setting of a trial"),
        (grid("'prune.heads' = [0.1]\nprune.heads = [0.2]"), "sweep: prune.heads: is given twice"),
        (
            random("'prune.heads' = { low = 0.5, high = 0.1 }"),
            "sweep.random.prune.heads: goes from 0.5 to 0.1",
        ),
        (
            random("'prune.heads' = { low = 0, high = 1, scale = 'log' }"),
            "sweep.random.prune.heads: begins at 0",
        ),
        (random("'prune.heads' = { low = 0.1, hihg = 1 }"), "sweep.random.prune.heads: there is no key hihg"),
        (random("'prune.heads' = { low = 0.1 }"), "sweep.random.prune.heads: lacks an end"),
        (random("'prune.heads' = { low = nan, high = 1.0 }"), "sweep.random.prune.heads: goes from NaN to 1"),
        (random("'prune.heads' = 3"), "sweep.random.prune.heads: is 3"),
        ("[sweep]\ntrials = 3".into(), "sweep.trials: is 3, and [sweep.random] has no key to draw"),
        ("[sweep.random]\n'prune.heads' = [0.1]".into(), "sweep.trials: is 0, and [sweep.random] waits"),
        (
            "[sweep]\nablate = true\n[sweep.grid]\n'prune.heads' = [0.1]".into(),
            "sweep.ablate: removes the terms",
        ),
        ("[train]\nbatch = 0\n[sweep]\nseeds = [1]".into(), "train.batch: is 0; a whole number"),
        ("[sweep]\nseeds = [-1]".into(), "sweep.seeds: is -1; a whole number"),
        ("sweep = 3".into(), "sweep: invalid type"),
    ] {
        let found = parse(&text, &[]).expect_err(&text).to_string();
        assert!(found.starts_with(expected), "{found:?} should start with {expected:?}");
    }
    let both = "[sweep]\ntrials = 1\n[sweep.grid]\nprune.heads = [0.1]\n[sweep.random]\nprune.heads = [0.2]";
    let found = parse(both, &[]).unwrap_err().to_string();
    assert!(found.starts_with("sweep.random.prune.heads: is in the grid, too"), "{found}");
    let found = Recipe::parse("[sweep]\nseeds = [1]", "r.toml".as_ref(), &[]).unwrap_err().to_string();
    assert!(found.starts_with("sweep: this recipe is a sweep's; run it with `limbeck sweep`"), "{found}");
}

/// Each recipe keeps its own compression and takes the sweep file's data.
#[test]
fn several_recipes_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file(
        "small.toml",
        "name = 'small'\n[data]\nlimit = 7\n[prune]\nunits = 0.5\n[quantize]\nembeddings = 'int4'\n",
    );
    file("large.toml", "name = 'large'\n[prune]\nheads = 0.5\n");
    file("nameless.toml", "seed = 1");
    file("other.toml", "name = 'small'\n");
    let load = |text: &str, typed: &[String]| Sweep::parse(text, &folder.path().join("points.toml"), typed);
    let text = "[data]\nlimit = 9\n[sweep]\nseeds = [1, 2]\nrecipes = ['small.toml', 'large.toml']\n";
    let sweep = load(text, &["distill.alpha=0.5".to_owned()]).unwrap();
    assert_eq!(ids(&sweep), ["small_seed-1", "large_seed-1", "small_seed-2", "large_seed-2"]);
    let of = |id: &str| &sweep.trials.iter().find(|trial| trial.id == id).unwrap().recipe;
    let (small, large) = (of("small_seed-1"), of("large_seed-2"));
    assert_eq!((small.prune.units, small.prune.heads, small.data.limit), (0.5, 0.0, 9));
    assert_eq!((large.prune.units, large.prune.heads, large.distill.alpha), (0.0, 0.5, 0.5));
    assert_ne!(small.quantize, large.quantize);
    assert_eq!(sweep.recipe.name, "points");
    let again = parse(sweep.canonical(), &[]).unwrap();
    assert_eq!((ids(&again), again.canonical()), (ids(&sweep), sweep.canonical()));
    assert!(again.trials.iter().zip(&sweep.trials).all(|(a, b)| a.recipe == b.recipe));
    assert_eq!(again.recipe.name, "points");

    let grid = load(&format!("{text}[sweep.grid]\n'distill.alpha' = [0.1, 0.2]\n"), &[]).unwrap();
    assert_eq!(ids(&grid)[..2], ["small_alpha-0.1_seed-1", "small_alpha-0.2_seed-1"]);
    for (text, problem) in [
        ("[sweep]\nrecipes = ['small.toml', 'other.toml']\n", "two recipes are called small"),
        ("[sweep]\nrecipes = ['small.toml', 'large.toml']\nablate = true\n", "sweep.recipes names several"),
        ("[sweep]\nbase = 'small.toml'\nrecipes = ['large.toml']\n", "more than one of"),
        ("[sweep]\nrecipes = ['none.toml']\n", "none.toml"),
        ("[sweep]\nrecipes = ['nameless.toml']\n", "a recipe has no name"),
    ] {
        let error = load(text, &[]).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn keys_of_any_letters_are_named_or_refused() {
    let key = "ä".repeat(60);
    for (table, trials) in [("grid", ""), ("random", "trials = 1\n")] {
        let text = format!("[sweep]\n{trials}[sweep.{table}]\n'prune.{key}' = [1, 2]\n");
        let error = parse(&text, &[]).err().unwrap().to_string();
        assert!(error.contains("there is no such key"), "{error}");
    }
    let text = "[sweep.grid]\n'quantize.exceptions.*lin1*' = ['int4', 'int8']\n";
    let sweep = parse(text, &[]).unwrap();
    assert_eq!(sweep.trials.len(), 2);
    assert!(ids(&sweep).iter().all(|id| id.is_ascii() && !id.contains('*')), "{:?}", ids(&sweep));
}

#[test]
fn what_a_sweep_varies_cannot_be_set() {
    let text = "[sweep]\nseeds = [1, 2]\n[sweep.grid]\n'prune.heads' = [0.2, 0.4]\n";
    for (set, word) in [("prune.heads=0.9", "sweep.grid"), ("seed=3", "sweep.seeds")] {
        let error = parse(text, &[set]).err().unwrap().to_string();
        assert!(error.contains("its own values") && error.contains(word), "{error}");
    }
    assert!(parse(text, &["prune.units=0.9", "sweep.seeds=[3]"]).is_ok());
}
