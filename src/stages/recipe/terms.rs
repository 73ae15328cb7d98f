//! What a recipe does beyond fine-tuning, term by term, and how each is switched off: what an ablation removes.
//!
//! A term that is added to recipes is one more entry of [`TERMS`], and no other place has to know of it.

use super::{
    BlockImportance, BlockScope, EmbeddingKind, Importance, Recipe, Rewind, Schedule, UnitImportance,
    WeightImportance, WeightKind, WidthImportance,
};

/// A part of compression that can be left out of a recipe.
#[derive(Clone, Copy)]
pub struct Term {
    /// What the ablation calls it, after `without-`: letters, digits and `-`.
    pub name: &'static str,
    off: &'static [&'static str],
    /// Whether all terms before it go with it.
    ends_stage: bool,
    used: fn(&Recipe) -> bool,
}

impl Term {
    /// The keys that switch it off, as after `--set`.
    pub fn off(&self) -> Vec<&'static str> {
        let with_it = before(self.name).filter(|_| self.ends_stage);
        with_it.flat_map(|term| term.off).chain(self.off).copied().collect()
    }

    /// Whether `recipe` does it, so that there is something to switch off.
    pub fn is_used(&self, recipe: &Recipe) -> bool {
        (self.used)(recipe)
    }
}

const fn term(name: &'static str, off: &'static [&'static str], used: fn(&Recipe) -> bool) -> Term {
    Term { name, off, ends_stage: false, used }
}

/// The terms that stand before the one of that name.
fn before(name: &str) -> impl Iterator<Item = &'static Term> {
    TERMS.iter().take_while(move |term| term.name != name)
}

/// All terms, in the order of the stages; first whatever deletes, masks, shares or factors.
pub const TERMS: &[Term] = &[
    term("layers", &["prune.layers=0", "prune.keep_layers=[]"], |r| {
        r.prune.layers > 0.0 || !r.prune.keep_layers.is_empty()
    }),
    term("heads", &["prune.heads=0"], |r| r.prune.heads > 0.0),
    term("units", &["prune.units=0"], |r| r.prune.units > 0.0),
    term("hidden-width", &["prune.hidden=0"], |r| r.prune.hidden > 0.0),
    term("weights", &["prune.weights=0"], |r| r.prune.weights > 0.0),
    term("classifier", &["prune.classifier=0"], |r| r.prune.classifier > 0.0),
    term("blocks", &["prune.blocks=0"], |r| r.prune.blocks > 0.0),
    term("vocabulary", &["prune.vocabulary=0"], |r| r.prune.vocabulary > 0),
    term("positions", &["prune.positions=0"], |r| r.prune.positions > 0),
    term("embedding-size", &["prune.embedding_size=0"], |r| r.prune.embedding_size > 0),
    term("sharing", &["prune.share=0"], |r| r.prune.share > 0),
    term("low-rank", &["prune.rank=0"], |r| r.prune.rank > 0.0),
    term("decoupling", &["prune.decouple=0"], |r| r.prune.decouple > 0),
    // The stage, where it is more than one of those above.
    Term { name: PRUNING, off: &["prune.schedule=once"], ends_stage: true, used: is_pruned_in_several_ways },
    // What is measured, against chance.
    term("importance", &["prune.head_importance=random", "prune.unit_importance=random"], |r| {
        let heads = r.prune.heads > 0.0 && r.prune.head_importance != Importance::Random;
        heads || r.prune.units > 0.0 && r.prune.unit_importance != UnitImportance::Random
    }),
    term("hidden-importance", &["prune.hidden_importance=random"], |r| {
        r.prune.hidden > 0.0 && r.prune.hidden_importance != WidthImportance::Random
    }),
    term("weight-importance", &["prune.weight_importance=magnitude"], |r| {
        r.prune.weights > 0.0 && r.prune.weight_importance != WeightImportance::Magnitude
    }),
    term("block-importance", &["prune.block_importance=magnitude"], |r| {
        r.prune.blocks > 0.0 && r.prune.block_importance != BlockImportance::Magnitude
    }),
    term("block-scope", &["prune.block_scope=matrix"], |r| {
        r.prune.blocks > 0.0 && r.prune.block_scope != BlockScope::Matrix
    }),
    // Blocks that are watched while a network trains have nothing to be watched in.
    term(
        "gradual",
        &["prune.schedule=once", "prune.block_importance=magnitude", "prune.weight_importance=magnitude"],
        is_gradual,
    ),
    term("rewinding", &["prune.rewind=none"], |r| {
        r.prune.schedule == Schedule::Iterative && r.prune.rewind != Rewind::None
    }),
    term("teacher", &["distill.alpha=0"], |r| r.distill.alpha > 0.0 && is_taught(r)),
    term("distillation", &["distill.train.epochs=0", "distill.train.steps=0"], is_distilled),
    term("hidden-states", &["distill.hidden=0"], |r| r.distill.hidden > 0.0 && is_taught(r)),
    term("cosine", &["distill.cosine=0"], |r| r.distill.cosine > 0.0 && is_taught(r)),
    term("attention-maps", &["distill.attention=0"], |r| r.distill.attention > 0.0 && is_taught(r)),
    term("relations", &["distill.relations=0"], |r| r.distill.relations > 0.0 && is_taught(r)),
    term("quantized-training", &["distill.quantized=0"], |r| r.distill.quantized > 0.0 && is_distilled(r)),
    term("channel-scales", &["quantize.weights=tensor"], |r| r.quantize.weights == WeightKind::Channel),
    term("int4-weights", &["quantize.weights=channel"], |r| r.quantize.weights == WeightKind::Int4),
    term("chosen-weights", &["quantize.weights=channel"], |r| r.quantize.weights == WeightKind::Auto),
    term("chosen-tables", &["quantize.embeddings=int8"], |r| r.quantize.embeddings == EmbeddingKind::Auto),
    term("exceptions", &["quantize.exceptions={}"], |r| !r.quantize.exceptions.is_empty()),
    term("int4-tables", &["quantize.embeddings=int8"], |r| r.quantize.embeddings == EmbeddingKind::Int4),
    term("small-embeddings", &["quantize.embeddings=f32"], |r| r.quantize.embeddings != EmbeddingKind::F32),
    term(
        "quantization",
        &["quantize.weights=f32", "quantize.embeddings=f32", "quantize.exceptions={}", "distill.quantized=0"],
        |r| r.quantize.weights != WeightKind::F32,
    ),
];

const PRUNING: &str = "pruning";

fn is_distilled(recipe: &Recipe) -> bool {
    recipe.distill.train.epochs > 0.0 || recipe.distill.train.steps > 0
}

fn is_pruned_in_several_ways(recipe: &Recipe) -> bool {
    before(PRUNING).filter(|term| term.is_used(recipe)).count() > 1
}

/// Whether anything learns from a teacher.
fn is_taught(recipe: &Recipe) -> bool {
    is_distilled(recipe) || is_gradual(recipe)
}

fn is_gradual(recipe: &Recipe) -> bool {
    recipe.prune.schedule != Schedule::Once
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms that go with their stage, of those in the recipe of the test below.
    const PRUNES: &[&str] = &[
        "pruning",
        "heads",
        "units",
        "classifier",
        "blocks",
        "weights",
        "vocabulary",
        "sharing",
        "low-rank",
        "importance",
        "gradual",
    ];
    const QUANTIZES: &[&str] = &["quantization", "channel-scales", "small-embeddings"];

    /// Switched off, a term is in use no longer, and the others are as before; with a stage go its terms.
    #[test]
    fn a_term_switches_itself_off_and_no_other() {
        let all = "[prune]\nheads = 0.5\nunits = 0.5\nclassifier = 0.1\nvocabulary = 500\nshare = 1\nrank = 0.25\nschedule = 'cubic'\n[distill.train]\nsteps = 9";
        let recipe = |off: &[&str], more: &str| {
            let off: Vec<String> = [&[more], off].concat().iter().map(|s| s.to_string()).collect();
            Recipe::parse(all, "test.toml".as_ref(), &off).unwrap()
        };
        for more in ["prune.weights=0.5", "prune.blocks=0.5"] {
            let whole = recipe(&[], more);
            for removed in TERMS.iter().filter(|term| term.is_used(&whole)) {
                let left = recipe(&removed.off(), more);
                let of_stage: &[&str] = match removed.name {
                    "pruning" => PRUNES,
                    "quantization" => QUANTIZES,
                    name => &[name],
                };
                for term in TERMS {
                    let expected = term.is_used(&whole) && !of_stage.contains(&term.name);
                    assert_eq!(term.is_used(&left), expected, "{} without {}", term.name, removed.name);
                }
            }
            assert!(TERMS.iter().filter(|term| term.is_used(&whole)).count() >= 10, "{more}");
        }
        let nothing = Recipe::parse(
            "[distill]\nalpha = 0\n[distill.train]\nepochs = 0\n[quantize]\nweights = 'f32'\nembeddings = 'f32'",
            "test.toml".as_ref(),
            &[],
        );
        assert!(!TERMS.iter().any(|term| term.is_used(nothing.as_ref().unwrap())));
    }

    /// Each term can be switched off in some recipe that has it.
    #[test]
    fn every_term_can_be_switched_off() {
        const RECIPES: &[&str] = &[
            "[prune]\nlayers = 0.3\nheads = 0.5\nunits = 0.5\nhidden = 0.25\nvocabulary = 500\npositions = 300\nembedding_size = 8\nshare = 1\n\
             rank = 0.25\n[distill]\nhidden = 0.1\ncosine = 0.1\nattention = 0.1\nrelations = 0.1\nquantized = 0.5",
            "[data]\nsource = 'files'\nsecond_columns = ['b']\n[prune]\nkeep_layers = [0, 2]\ndecouple = 1\nclassifier = 0.1\n\
             weights = 0.5\nschedule = 'cubic'\nevents = 4\nweight_importance = 'movement'\n[quantize]\nweights = 'int4'\n\
             embeddings = 'int4'",
            "[data]\nvalidation = 100\n[prune]\nblocks = 0.5\nblock_importance = 'fisher'\nblock_scope = 'global'\nschedule = 'cubic'\n[quantize]\n\
             weights = 'auto'\nembeddings = 'auto'",
            "[prune]\nheads = 0.5\nschedule = 'iterative'\nrewind = 'weights'\n[quantize.exceptions]\n'head.classifier' = 'f32'",
        ];
        let parse = |text: &str, off: &[&str]| {
            let off: Vec<String> = off.iter().map(|assignment| assignment.to_string()).collect();
            Recipe::parse(text, "test.toml".as_ref(), &off).unwrap()
        };
        let mut tried: Vec<&str> = Vec::new();
        for text in RECIPES {
            let whole = parse(text, &[]);
            for term in TERMS.iter().filter(|term| term.is_used(&whole)) {
                assert!(!term.is_used(&parse(text, &term.off())), "{} of {text}", term.name);
                tried.push(term.name);
            }
            let unpruned = TERMS.iter().find(|term| term.name == PRUNING).unwrap().off();
            let left = parse(text, &unpruned);
            assert!(before(PRUNING).all(|term| !term.is_used(&left)), "{text}");
        }
        let untried: Vec<&str> =
            TERMS.iter().map(|term| term.name).filter(|name| !tried.contains(name)).collect();
        assert!(untried.is_empty(), "no recipe here has {untried:?}");
    }

    #[test]
    fn names_are_plain_and_differ() {
        for (i, term) in TERMS.iter().enumerate() {
            assert!(term.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            assert!(TERMS[..i].iter().all(|other| other.name != term.name), "{}", term.name);
        }
    }
}
