//! Settings that somebody made and nothing reads: said before the first step, for they were meant to do something.

use super::{Recipe, Schedule};

/// Keys that only matter if something else is set.
struct Dependent {
    keys: &'static [&'static str],
    matter: fn(&Recipe) -> bool,
    /// Why not, where they do not.
    because: &'static str,
}

const fn only_if(
    matter: fn(&Recipe) -> bool,
    because: &'static str,
    keys: &'static [&'static str],
) -> Dependent {
    Dependent { keys, matter, because }
}

const DEPENDENT: &[Dependent] = &[
    only_if(
        |r| r.model.path.is_empty(),
        "the model of model.path has its own",
        &[
            "model.layers",
            "model.hidden",
            "model.heads",
            "model.intermediate",
            "model.vocab",
            "model.positions",
        ],
    ),
    only_if(
        |r| r.data.validation > 0,
        "no rows are held out (data.validation is 0)",
        &["train.evaluate_every", "train.patience", "train.keep_best"],
    ),
    only_if(|r| r.prune.layers > 0.0, "prune.layers is 0", &["prune.layer_importance"]),
    only_if(|r| r.prune.hidden > 0.0, "prune.hidden is 0", &["prune.hidden_importance"]),
    only_if(|r| r.prune.heads > 0.0, "prune.heads is 0", &["prune.head_importance", "prune.head_scope"]),
    only_if(|r| r.prune.units > 0.0, "prune.units is 0", &["prune.unit_importance", "prune.unit_scope"]),
    only_if(
        |r| r.prune.weights > 0.0,
        "prune.weights is 0",
        &["prune.weight_importance", "prune.weight_matrices"],
    ),
    only_if(
        |r| r.prune.weights > 0.0 || r.prune.classifier > 0.0,
        "prune.weights and prune.classifier are 0",
        &["prune.weight_scope"],
    ),
    only_if(
        |r| r.prune.blocks > 0.0,
        "prune.blocks is 0",
        &["prune.block_shape", "prune.block_importance", "prune.block_scope", "prune.block_matrices"],
    ),
    only_if(|r| r.prune.share > 0, "prune.share is 0", &["prune.share_start"]),
    only_if(|r| r.prune.rank > 0.0, "prune.rank is 0", &["prune.rank_matrices", "prune.rank_scope"]),
    only_if(|r| r.prune.schedule != Schedule::Once, "prune.schedule is \"once\"", &["prune.events"]),
    only_if(
        |r| r.prune.schedule == Schedule::Iterative,
        "prune.schedule is not \"iterative\"",
        &["prune.rewind", "prune.rewind_to"],
    ),
    only_if(
        |r| r.distill.hidden > 0.0 || r.distill.cosine > 0.0 || r.distill.attention > 0.0,
        "distill.hidden, cosine and attention are 0",
        &["distill.layer_map"],
    ),
    only_if(
        |r| r.distill.relations > 0.0,
        "distill.relations is 0",
        &["distill.relation_heads", "distill.relation_layers"],
    ),
    only_if(
        |r| r.quantize.chooses(),
        "[quantize] leaves nothing to be chosen (\"auto\")",
        &["quantize.budget", "quantize.samples"],
    ),
];

impl Recipe {
    /// What is set to other than its default and does nothing, and why, a line each reason.
    pub fn idle_settings(&self) -> Vec<String> {
        let (values, defaults) = (self.values(), Recipe::default().values());
        let idle = DEPENDENT.iter().filter(|dependent| !(dependent.matter)(self)).filter_map(|dependent| {
            let is_set = |key: &&&str| values.get(**key) != defaults.get(**key);
            let keys: Vec<&str> = dependent.keys.iter().filter(is_set).copied().collect();
            let do_nothing = if keys.len() == 1 { "does nothing" } else { "do nothing" };
            (!keys.is_empty())
                .then(|| format!("recipe: {} {do_nothing}: {}", keys.join(", "), dependent.because))
        });
        idle.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(set: &[&str]) -> Recipe {
        let set: Vec<String> = set.iter().map(|assignment| assignment.to_string()).collect();
        Recipe::parse("", "test.toml".as_ref(), &set).unwrap()
    }

    #[test]
    fn what_is_set_and_does_nothing_is_told_with_the_reason() {
        let recipe =
            parse(&["prune.head_scope=layer", "prune.head_importance=norm", "prune.rank_scope=global"]);
        assert_eq!(
            recipe.idle_settings(),
            [
                "recipe: prune.head_importance, prune.head_scope do nothing: prune.heads is 0",
                "recipe: prune.rank_scope does nothing: prune.rank is 0",
            ]
        );
        assert!(parse(&["prune.head_scope=layer", "prune.heads=0.5"]).idle_settings().is_empty());
        assert!(Recipe::default().idle_settings().is_empty());
    }

    /// A key that was renamed would be idle for ever.
    #[test]
    fn every_key_exists() {
        let other = "layer_importance = 'last'\nhidden_importance = 'norm'\nshare_start = 'first'\nrank_matrices = 'attention'\n\
                     rank_scope = 'global'\nweight_importance = 'movement'\nweight_matrices = 'encoder'\nrewind = 'rate'\nrewind_to = 0.5\n\
                     weights = 0.5\nschedule = 'iterative'";
        let text = format!(
            "[data]\nvalidation = 9\n[prune]\n{other}\n[distill]\nrelation_layers = [0, 0]\n[quantize]\nweights = 'auto'\nbudget = 0.3\n\
             samples = 9"
        );
        let values = Recipe::parse(&text, "test.toml".as_ref(), &[]).unwrap().values();
        for key in DEPENDENT.iter().flat_map(|dependent| dependent.keys) {
            assert!(values.contains_key(*key), "{key}");
        }
    }
}
