//! Learning from a teacher's layers: what is compared, that its gradients are right through the whole network, and that
//! nothing is learnt from one's equal.

use crate::fixture::{learner, learner_of, notes};
use limbeck::Batch;
use limbeck::backend::Cpu;
use limbeck::compress::Keep;
use limbeck::compress::delete;
use limbeck::data::TokenSet;
use limbeck::models::Classifier;
use limbeck::models::config::{LayerConfig, ModelConfig, Pooling};
use limbeck::nn::ParamId;
use limbeck::params::ParamStore;
use limbeck::tensor::Tensor;
use limbeck::train::layer_map::similarities;
use limbeck::train::{Examples, FeatureDistillation, Learner, Step, Terms};
use limbeck_kernels::random::{SplitMix64, mix};

const NONE: Terms<f64> = Terms { hidden: 0.0, cosine: 0.0, attention: 0.0, relations: 0.0 };

fn each_term() -> [Terms<f64>; 4] {
    [
        Terms { hidden: 1.5, ..NONE },
        Terms { cosine: 1.5, ..NONE },
        Terms { attention: 1.5, ..NONE },
        Terms { relations: 1.5, ..NONE },
    ]
}

fn examples(texts: &TokenSet) -> Examples {
    let mut batch = Batch::new();
    (0..5).for_each(|text| batch.push(texts.tokens(text), text as u64));
    Examples { batch, labels: (0..5).map(|text| texts.label(text)).collect(), teacher: None }
}

/// A network of so many layers, of this width and these heads a layer, whose matrices are not small.
fn network(texts: &TokenSet, vocab: usize, layers: usize, [hidden, heads]: [usize; 2]) -> Learner<Cpu> {
    let base = learner(texts, vocab).model.config;
    let config = ModelConfig {
        hidden,
        head_size: hidden / heads,
        original_heads: heads,
        layers: vec![LayerConfig::dense(heads, 12); layers],
        ..base
    };
    learner_of(&config, 20.0)
}

fn features(weights: Terms<f64>, layers: &[[usize; 2]], relation_layers: [usize; 2]) -> FeatureDistillation {
    FeatureDistillation { weights, layers: layers.to_vec(), relation_layers, relation_heads: 3 }
}

fn taught(
    mut student: Learner<Cpu>,
    teacher: Learner<Cpu>,
    features: FeatureDistillation,
    texts: Option<TokenSet>,
) -> Learner<Cpu> {
    student.distill_features((teacher.model, teacher.params), features, texts, 3).unwrap();
    student
}

/// A step that changes nothing: its loss, and the gradient of each parameter.
fn look(learner: &mut Learner<Cpu>, examples: &Examples) -> (Step, Vec<Vec<f32>>) {
    let mut gradients = Vec::new();
    let step = learner.step(
        examples,
        None,
        0.0,
        Some(&mut |seen, _, _, grads| {
            for (id, param) in seen.params.iter() {
                let zeros = || vec![0.0; param.spec.len()];
                gradients.push(grads.param(id).map_or_else(zeros, |tensor| tensor.buffer().to_vec()));
            }
            Ok(())
        }),
    );
    (step.unwrap(), gradients)
}

/// Moves every parameter by `step` along a direction that depends on its place.
fn shift(learner: &mut Learner<Cpu>, step: f32) {
    let backend = learner.backend.clone();
    for i in 0..learner.params.len() {
        let id = ParamId(i as u32);
        let (shape, direction) = (learner.params.value(id).shape(), direction(i, learner.params.value(id)));
        let values = learner.params.value(id).buffer().iter().zip(direction);
        let values: Vec<f32> = values.map(|(x, d)| x + step * d).collect();
        *learner.params.value_mut(id).0 = Tensor::upload(&backend, &values, shape).unwrap();
    }
}

fn direction(param: usize, value: &Tensor<Cpu>) -> Vec<f32> {
    let mut random = SplitMix64::new(mix(param as u64));
    (0..value.shape().len()).map(|_| random.signed_unit()).collect()
}

#[test]
fn the_gradient_of_each_term_is_the_slope_of_the_loss() {
    let (texts, vocab) = notes();
    let examples = examples(&texts);
    // A teacher that is deeper; one that is also wider, with other heads; a student that reads the mean.
    for (hidden, heads, pooling) in
        [(12, 3, Pooling::FirstToken), (20, 4, Pooling::FirstToken), (12, 3, Pooling::Mean)]
    {
        for weights in each_term() {
            let mut student = network(&texts, vocab, 2, [12, 3]);
            student.model.config.pooling = pooling;
            let mut student = taught(
                student,
                network(&texts, vocab, 3, [hidden, heads]),
                features(weights, &[[0, 1], [1, 2]], [1, 2]),
                None,
            );
            let what = format!("{weights:?}, teacher of {hidden}, {pooling:?}");
            let (step, gradients) = look(&mut student, &examples);
            let part = 1.5 * step.terms.present().map(|(_, value)| value).sum::<f64>();
            assert!(part > 0.01 && (step.loss - step.cross_entropy - part).abs() <= 1e-9, "{what}: {step:?}");
            let expected: f64 = gradients
                .iter()
                .enumerate()
                .map(|(i, gradient)| {
                    let direction = direction(i, student.params.value(ParamId(i as u32)));
                    gradient.iter().zip(direction).map(|(g, d)| f64::from(g * d)).sum::<f64>()
                })
                .sum();
            let h = 1.0 / 8192.0;
            shift(&mut student, h);
            let above = look(&mut student, &examples).0.loss;
            shift(&mut student, -2.0 * h);
            let below = look(&mut student, &examples).0.loss;
            let slope = (above - below) / f64::from(2.0 * h);
            let error = (slope - expected).abs() / expected.abs().max(0.1);
            assert!(error <= 0.01, "{what}: {expected} is not the slope {slope}");
        }
    }
}

#[test]
fn from_an_equal_nothing_is_learnt() {
    let (texts, vocab) = notes();
    let (examples, all) =
        (examples(&texts), Terms { hidden: 1.0, cosine: 1.0, attention: 1.0, relations: 1.0 });
    let one = || network(&texts, vocab, 2, [12, 3]);
    let (_, alone) = look(&mut one(), &examples);
    let mut student = taught(one(), one(), features(all, &[[0, 0], [1, 1]], [1, 1]), None);
    let (step, gradients) = look(&mut student, &examples);
    assert_eq!(step.terms.present().count(), 4);
    step.terms.present().for_each(|(name, value)| assert!(value.abs() <= 1e-7, "{name}: {value}"));
    for (found, expected) in gradients.iter().zip(&alone) {
        let distance = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(distance <= 1e-6, "{distance}");
    }
}

#[test]
fn a_teacher_reads_its_own_ids() {
    let (texts, vocab) = notes();
    let (examples, weights) = (examples(&texts), Terms { hidden: 1.0, ..NONE });
    // The student's table is the teacher's upside down, and so are the ids that it is handed.
    let teacher = network(&texts, vocab, 2, [12, 3]);
    let mut student = network(&texts, vocab, 2, [12, 3]);
    let words = student.model.embeddings.words;
    let table =
        student.params.value(words).buffer().chunks(12).rev().flatten().copied().collect::<Vec<f32>>();
    let shape = student.params.value(words).shape();
    *student.params.value_mut(words).0 = Tensor::upload(&teacher.backend, &table, shape).unwrap();
    let turned = Examples {
        batch: Batch {
            ids: examples.batch.ids.iter().map(|id| vocab as u32 - 1 - id).collect(),
            ..examples.batch.clone()
        },
        ..examples
    };
    let mut student = taught(student, teacher, features(weights, &[[0, 0], [1, 1]], [1, 1]), Some(notes().0));
    let hidden = look(&mut student, &turned).0.terms.hidden.unwrap();
    assert!(hidden <= 1e-10, "{hidden}");
}

#[test]
fn projections_stay_while_a_network_shrinks_and_are_none_of_it() {
    let (texts, vocab) = notes();
    let (examples, all) =
        (examples(&texts), Terms { hidden: 1.0, cosine: 1.0, attention: 1.0, relations: 1.0 });
    let student = network(&texts, vocab, 2, [12, 3]);
    let own = student.params.len();
    let teacher = network(&texts, vocab, 3, [20, 4]);
    let mut student = taught(student, teacher, features(all, &[[0, 0], [1, 2]], [1, 2]), None);
    assert_eq!((student.params.len(), student.network().count()), (own + 6, own));
    let loss = |student: &mut Learner<Cpu>| student.step(&examples, None, 1e-2, None).unwrap().loss;
    let first = loss(&mut student);
    let projection = student.params.value(ParamId(own as u32)).buffer().to_vec();
    loss(&mut student);
    assert_ne!(student.params.value(ParamId(own as u32)).buffer().to_vec(), projection, "it is learnt");
    let kept = student.params.value(ParamId(own as u32)).buffer().to_vec();
    // The second layer loses all of its heads: it has no attention to compare, and no relations.
    let keep = Keep { heads: vec![vec![0, 2], vec![]], ..Keep::all(&student.model.config) };
    delete(&mut student, &keep).unwrap();
    assert_eq!(student.params.value(ParamId(own as u32)).buffer().to_vec(), kept);
    assert_eq!((student.params.len(), student.network().count()), (own + 6, own));
    let last = (0..40).map(|_| loss(&mut student)).last().unwrap();
    assert!(last < first, "{first} {last}");
}

#[test]
fn a_layer_is_most_like_itself() {
    let (texts, vocab) = notes();
    let batch = examples(&texts).batch;
    let network = network(&texts, vocab, 3, [12, 3]);
    let of = |learner: &Learner<Cpu>| -> (Classifier, ParamStore<Cpu>) {
        let model = Classifier::new(&learner.model.config).0;
        let specs: Vec<_> = learner.params.iter().map(|(_, param)| param.spec.clone()).collect();
        let mut values = learner.params.iter().map(|(_, param)| param.value().buffer().to_vec());
        (model, ParamStore::new(&learner.backend, &specs, |_| Ok(values.next().unwrap())).unwrap())
    };
    let (model, params) = of(&network);
    let found =
        similarities(&network.backend, (&model, &params, &batch), (&network.model, &network.params, &batch))
            .unwrap();
    for (i, row) in found.iter().enumerate() {
        assert!((row[i] - 1.0).abs() <= 1e-5, "{found:?}");
        assert!(row.iter().enumerate().all(|(j, cka)| i == j || (0.0..0.999).contains(cka)), "{found:?}");
    }
}
