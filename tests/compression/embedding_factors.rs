//! A factored word table computes what the product of its factors does, keeps all else, and learns.

use crate::common::distance;
use crate::network::{bits, config, download, examples, id, learner, states};
use limbeck::backend::Cpu;
use limbeck::compress::Keep;
use limbeck::compress::delete;
use limbeck::compress::embedding_factors::{factorize, most_useful};
use limbeck::compress::expand::expand;
use limbeck::infer::{Model, Session};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::params::{Mask, ParamStore};
use limbeck::train::Learner;
use limbeck::train::learner::{gradients, logits};

const WORDS: &str = "distilbert.embeddings.word_embeddings.weight";
const PROJECTION: &str = "distilbert.embeddings_project.weight";

fn families() -> [ModelConfig; 2] {
    [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Mean)]
        .map(|(architecture, pooling)| config(architecture, pooling, 0.0))
}

/// The logits of what [`expand`] makes of a learner's network.
fn folded(learner: &Learner<Cpu>, batch: &limbeck::Batch) -> (ModelConfig, Vec<f32>) {
    let values = learner.params.iter().map(|(_, param)| download(learner, param.value())).collect();
    let (config, values) = expand(&learner.model.config, values);
    let (model, specs) = Classifier::new(&config);
    let mut values = values.into_iter();
    let params = ParamStore::new(&learner.backend, &specs, |_| Ok(values.next().unwrap())).unwrap();
    (config, logits(&learner.backend, &model, &params, batch).unwrap())
}

#[test]
fn factors_compute_what_their_product_does() {
    for config in families() {
        let mut factored = learner(&config);
        let batch = examples(0..9).batch;
        let whole = factored.logits(&batch).unwrap();
        let energy = factorize(&mut factored, 7).unwrap();
        assert!(energy > 0.3 && energy < 0.9, "random rows have no low rank: {energy}");
        assert_eq!(factored.model.config.embedding_size, Some(7));
        // A bias, which is zero at first and would be learnt.
        let bias = factored.model.embeddings.projection.as_ref().unwrap().bias.unwrap();
        crate::network::change(&mut factored, bias, |_, col, _| 0.01 * col as f32);

        let found = factored.logits(&batch).unwrap();
        let (dense, expected) = folded(&factored, &batch);
        assert_eq!(dense, config);
        assert!(distance(&found, &expected) <= 1e-5, "{:?}", config.architecture);
        assert!(distance(&found, &whole) > 1e-2, "something was lost");
        // The session computes what the tape does.
        let mut ids = 0..;
        let values = |_: &_| {
            let id = limbeck::nn::ParamId(ids.next().unwrap());
            Ok(download(&factored, factored.params.value(id)))
        };
        let model = Model::from_values(&factored.model.config, values).unwrap();
        let session = Session::new(&model).logits(&batch).unwrap().to_vec();
        assert!(distance(&session, &found) <= 1e-6, "{:?}", config.architecture);
    }
}

#[test]
fn more_columns_lose_less_and_nearly_all_lose_next_to_nothing() {
    let config = &families()[0];
    let batch = examples(0..9).batch;
    let whole = learner(config).logits(&batch).unwrap();
    let mut losses = Vec::new();
    for size in [3, 12, config.hidden - 1] {
        let mut factored = learner(config);
        let energy = factorize(&mut factored, size).unwrap();
        let words = download(&factored, factored.params.value(id(&factored, WORDS)));
        let projection = download(&factored, factored.params.value(id(&factored, PROJECTION)));
        assert_eq!((words.len(), projection.len()), (config.vocab * size, config.hidden * size));
        losses.push((1.0 - energy, distance(&factored.logits(&batch).unwrap(), &whole)));
    }
    assert!(losses.is_sorted_by(|a, b| a.0 > b.0 && a.1 > b.1), "{losses:?}");
    assert!(losses[2].0 < 0.02, "{losses:?}");
    // 50·24 = 1,200 parameters become 15·(50 + 24) and a bias of 24: 1,134; of size 16 they are 1,208.
    assert_eq!(most_useful(50, 24), 15);
    assert_eq!((most_useful(1, 1), most_useful(0, 3)), (0, 0));
}

#[test]
fn all_else_keeps_values_masks_and_moments_and_the_network_learns() {
    let mut learner = learner(&families()[0]);
    let masked = id(&learner, "distilbert.transformer.layer.1.ffn.lin1.weight");
    let len = learner.params.value(masked).shape().len();
    let mask = Mask((0..len).map(|i| u8::from(i % 3 > 0)).collect());
    learner.params.set_mask(&learner.backend, masked, mask.clone()).unwrap();
    (0..3).for_each(|step| _ = learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap());
    let before: Vec<_> =
        learner.params.iter().map(|(id, param)| (param.spec.name.clone(), states(&learner, id))).collect();
    factorize(&mut learner, 6).unwrap();
    for (name, states_before) in before.iter().filter(|(name, _)| name != WORDS) {
        assert!(states(&learner, id(&learner, name)) == *states_before, "{name}");
    }
    assert_eq!(learner.params.len(), before.len() + 2);
    assert_eq!(learner.optimizer.steps(), 3);
    let masked = id(&learner, "distilbert.transformer.layer.1.ffn.lin1.weight");
    assert_eq!(learner.params.get(masked).mask.as_ref(), Some(&mask));
    let [_, m, v] = states(&learner, id(&learner, PROJECTION));
    assert!(m.iter().chain(&v).all(|&moment| moment == 0.0));

    let (_, grads) =
        gradients(&learner.backend, &learner.model, &learner.params, &examples(0..6), None, None).unwrap();
    for name in [WORDS, PROJECTION] {
        let gradient = grads.param(id(&learner, name)).expect("it matters");
        assert!(download(&learner, gradient).iter().any(|&x| x != 0.0), "{name}");
    }
    let mut step = || learner.step(&examples(0..6), None, 1e-2, None).unwrap().loss;
    let first = step();
    let last = (0..10).map(|_| step()).last().unwrap();
    assert!(last < 0.5 * first, "{first} {last}");
    crate::network::assert_masks(&learner);
}

#[test]
fn pieces_of_a_factored_table_go_as_those_of_a_whole_one() {
    let config = &families()[0];
    let mut factored = learner(config);
    factorize(&mut factored, 6).unwrap();
    let text = [3u32, 7, 7, 20, 41];
    let expected = factored.logits(&limbeck::Batch::from_texts([&text[..]])).unwrap();
    let keep = Keep { pieces: vec![3, 7, 20, 30, 41], ..Keep::all(&factored.model.config) };
    delete(&mut factored, &keep).unwrap();
    assert_eq!(factored.params.value(id(&factored, WORDS)).shape().rows, 5);
    let found = factored.logits(&limbeck::Batch::from_texts([&[0u32, 1, 1, 2, 4][..]])).unwrap();
    assert_eq!(bits(&found), bits(&expected));
}
