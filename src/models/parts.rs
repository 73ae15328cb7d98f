//! A network's parts as people speak of them, and what each costs.

use super::config::Pooling;
use super::{Classifier, ModelConfig};
use crate::nn::{LayerNorm, Linear, ParamId};

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The tables and their norm.
    Embeddings,
    /// Attention of one layer, with the norm behind it.
    Attention(usize),
    /// The feed-forward part of one layer, with the norm behind it.
    FeedForward(usize),
    /// From the last layer's output to logits.
    Head,
}

/// One part of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Its parameters. Every parameter belongs to one part: those of a layer that others use too, to that layer's.
    pub params: Vec<ParamId>,
    /// Heads, or feed-forward units, that remain, and how many there were.
    pub remaining: Option<(usize, usize)>,
}

impl Kind {
    /// As `layer 0 attention`.
    pub fn name(self) -> String {
        match self {
            Kind::Embeddings => "embeddings".to_owned(),
            Kind::Attention(layer) => format!("layer {layer} attention"),
            Kind::FeedForward(layer) => format!("layer {layer} feed-forward"),
            Kind::Head => "head".to_owned(),
        }
    }

    /// Multiply-adds for one text of `tokens` tokens, when only logits are wanted: those of the matrix products
    /// and of attention, which are nearly all. Lookups, norms and nonlinearities are not counted.
    ///
    /// Where the pooling reads the first token alone, the last layer has keys and values of all tokens, and the
    /// rest of it is of one row.
    pub fn multiply_adds(self, config: &ModelConfig, tokens: usize) -> u64 {
        self.multiply_adds_of_pair(config, [tokens, 0], false)
    }

    /// The same of a network whose layer's matrices, in the order of [`Layer::linears`](crate::nn::Layer::linears), have such
    /// shares of their elements left: those of the blocks that are not zero.
    pub fn multiply_adds_left(self, config: &ModelConfig, tokens: usize, left: [f64; 6]) -> u64 {
        self.count(config, [tokens, 0], false, left)
    }

    /// Multiply-adds of a pair whose sentences have so many tokens, special ones included; or what is left of them if the first
    /// sentence was prepared ([`Session::prepare`](crate::infer::Session::prepare)).
    pub fn multiply_adds_of_pair(self, config: &ModelConfig, sentences: [usize; 2], prepared: bool) -> u64 {
        self.count(config, sentences, prepared, [1.0; 6])
    }

    fn count(self, config: &ModelConfig, sentences: [usize; 2], prepared: bool, left: [f64; 6]) -> u64 {
        let (hidden, [first, second]) = (config.hidden as u64, sentences.map(|tokens| tokens as u64));
        let is_decoupled = |layer: usize| layer < config.decoupled;
        // Where each sentence stands alone, the first one's rows may be known.
        let own = if prepared { [0, second] } else { [first, second] };
        let computed = |layer: usize| if is_decoupled(layer) { own[0] + own[1] } else { first + second };
        let rows = |layer: usize| {
            let first_only = layer + 1 == config.layers.len() && config.pooling != Pooling::Mean;
            if first_only { 1 } else { computed(layer) }
        };
        match self {
            Kind::Embeddings => (own[0] + own[1]) * hidden * config.embedding_size.unwrap_or(0) as u64,
            Kind::Attention(layer) => {
                let [query, key, value, output, ..] = products(config, layer, left);
                // Scores, and the sum of values that they weigh.
                let attended = match is_decoupled(layer) {
                    true => own[0] * own[0] + own[1] * own[1],
                    false => rows(layer) * computed(layer),
                };
                let attention = 2 * attended * config.attention_width(layer) as u64;
                computed(layer) * (key + value) + rows(layer) * (query + output) + attention
            }
            Kind::FeedForward(layer) => {
                let [.., expand, contract] = products(config, layer, left);
                rows(layer) * (expand + contract)
            }
            Kind::Head => {
                let dense = if config.has_dense() { hidden * hidden } else { 0 };
                dense + hidden * config.labels.len() as u64
            }
        }
    }
}

/// Multiply-adds of one row by each of a layer's matrices, of which such shares are left.
fn products(config: &ModelConfig, layer: usize, left: [f64; 6]) -> [u64; 6] {
    let (sides, ranks) = (config.sides(layer), config.ranks_of(layer));
    std::array::from_fn(|matrix| {
        let ([outputs, inputs], rank) = (sides[matrix], ranks[matrix]);
        let all = if rank == 0 { outputs * inputs } else { rank * (outputs + inputs) };
        (all as f64 * left[matrix]).round() as u64
    })
}

impl Classifier {
    /// The parts, in the order in which a text flows through them.
    pub fn parts(&self) -> Vec<Part> {
        let config = &self.config;
        let tables = &self.embeddings;
        let mut params = vec![tables.words, tables.positions];
        params.extend(tables.token_types);
        params.extend(norm(&tables.norm));
        params.extend(tables.projection.iter().flat_map(Linear::params));
        let mut parts = vec![Part { kind: Kind::Embeddings, params, remaining: None }];
        for (i, layer) in self.layers.iter().enumerate() {
            let left = &config.layers[i];
            let (linears, owns) = (layer.linears(), config.owner(i) == i);
            let part = |linears: &[&Linear], after: &LayerNorm| -> Vec<ParamId> {
                let all = linears.iter().flat_map(|linear| linear.params()).chain(norm(after));
                all.filter(|_| owns).collect()
            };
            parts.push(Part {
                kind: Kind::Attention(i),
                params: part(&linears[..4], &layer.attention_norm),
                remaining: Some((left.heads.len(), config.original_heads)),
            });
            parts.push(Part {
                kind: Kind::FeedForward(i),
                params: part(&linears[4..], &layer.output_norm),
                remaining: Some((left.intermediate, config.original_intermediate)),
            });
        }
        let linears = self.head.dense.iter().chain([&self.head.classifier]);
        parts.push(Part {
            kind: Kind::Head,
            params: linears.flat_map(Linear::params).collect(),
            remaining: None,
        });
        parts
    }
}

fn norm(norm: &LayerNorm) -> [ParamId; 2] {
    [norm.gamma, norm.beta]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::config::{Architecture, DropoutConfig, LayerConfig, Sizes};
    use crate::nn::{Attend, Embeddings, Exec, ParamSpec};

    fn config(architecture: Architecture, pooling: Pooling) -> ModelConfig {
        ModelConfig {
            architecture,
            token_types: 2,
            layers: [(vec![], 5), (vec![1], 0), (vec![1, 3], 17)]
                .map(|(heads, intermediate)| LayerConfig { heads, intermediate })
                .to_vec(),
            dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
            pooling,
            ..ModelConfig::distilbert(
                Sizes { vocab: 50, positions: 16, hidden: 36, heads: 4, intermediate: 19, layers: 0 },
                ["a", "b", "c"],
            )
        }
    }

    /// Runs a network on sizes alone and counts the multiply-adds of what it is asked for.
    struct Counting {
        sentences: [usize; 2],
        sum: u64,
    }

    impl Counting {
        fn tokens(&self) -> usize {
            self.sentences.iter().sum()
        }
    }

    impl Exec for Counting {
        /// Rows.
        type Var = usize;

        fn embed(&mut self, _: &Embeddings) -> crate::Result<usize> {
            Ok(self.tokens())
        }

        fn words(&mut self, _: &Embeddings) -> crate::Result<usize> {
            Ok(self.tokens())
        }

        fn embed_words(&mut self, _: &Embeddings, words: &usize) -> crate::Result<usize> {
            Ok(*words)
        }

        fn linear(&mut self, layer: &Linear, x: &usize) -> crate::Result<usize> {
            self.sum += (x * layer.inputs * layer.outputs) as u64;
            Ok(*x)
        }

        fn attend(
            &mut self,
            attend: &Attend,
            query: &usize,
            key: &usize,
            value: &usize,
        ) -> crate::Result<usize> {
            let pairs = match attend.decoupled {
                true => 2 * self.sentences.iter().map(|tokens| tokens * tokens).sum::<usize>(),
                false => query * (key + value),
            };
            self.sum += (attend.heads * attend.head_size * pairs) as u64;
            Ok(*query)
        }

        fn add_norm(&mut self, _: &LayerNorm, x: &usize, residual: &usize, _: f32) -> crate::Result<usize> {
            assert_eq!(x, residual);
            Ok(*x)
        }

        fn first_tokens(&mut self, _: &usize) -> crate::Result<usize> {
            Ok(1)
        }

        fn mean_tokens(&mut self, _: &usize) -> crate::Result<usize> {
            Ok(1)
        }

        fn dropout(&mut self, x: &usize, _: f32) -> crate::Result<usize> {
            Ok(*x)
        }
    }

    #[test]
    fn multiply_adds_are_those_that_the_network_asks_for() {
        let (bert, distilbert) = (Architecture::Bert, Architecture::DistilBert);
        for (architecture, pooling) in [
            (bert, Pooling::Pooler),
            (bert, Pooling::FirstToken),
            (bert, Pooling::Mean),
            (distilbert, Pooling::FirstToken),
            (distilbert, Pooling::Mean),
        ] {
            for embedding_size in [None, Some(7)] {
                let config = ModelConfig { embedding_size, ..config(architecture, pooling) };
                let (model, _) = Classifier::new(&config);
                let mut counting = Counting { sentences: [11, 0], sum: 0 };
                model.forward(&mut counting).unwrap();
                let parts = model.parts();
                let sum: u64 = parts.iter().map(|part| part.kind.multiply_adds(&config, 11)).sum();
                assert_eq!(sum, counting.sum, "{architecture:?} {pooling:?}");
            }
        }
    }

    /// A pair costs what a decoupled network asks for; after a prepared first sentence, less by what that took, and no
    /// more.
    #[test]
    fn a_prepared_sentence_is_not_computed_again() {
        for decoupled in 0..3 {
            let config = ModelConfig {
                decoupled,
                embedding_size: Some(7),
                ..config(Architecture::Bert, Pooling::Pooler)
            };
            let model = Classifier::new(&config).0;
            let cost = |prepared: bool| -> u64 {
                let parts = model.parts().into_iter();
                parts.map(|part| part.kind.multiply_adds_of_pair(&config, [8, 5], prepared)).sum()
            };
            let mut whole = Counting { sentences: [8, 5], sum: 0 };
            model.forward(&mut whole).unwrap();
            assert_eq!(cost(false), whole.sum, "{decoupled}");
            let mut first = Counting { sentences: [8, 0], sum: 0 };
            model.lower(&mut first).unwrap();
            let mut after = Counting { sentences: [0, 5], sum: 0 };
            model.lower(&mut after).unwrap();
            after.sentences = [8, 5];
            model.upper(&mut after, 13).unwrap();
            assert_eq!(cost(true), after.sum, "{decoupled}");
            assert_eq!(whole.sum, after.sum + first.sum, "{decoupled}");
        }
    }

    #[test]
    fn every_parameter_belongs_to_one_part_of_its_name() {
        for (architecture, embedding_size) in
            [(Architecture::DistilBert, None), (Architecture::Bert, None), (Architecture::Bert, Some(7))]
        {
            let config = ModelConfig { embedding_size, ..config(architecture, Pooling::FirstToken) };
            let (model, specs) = Classifier::new(&config);
            let mut found: Vec<ParamId> = model.parts().into_iter().flat_map(|part| part.params).collect();
            found.sort();
            assert!(found.iter().map(|id| id.index()).eq(0..specs.len()));
            let name = |id: &ParamId| -> &ParamSpec { &specs[id.index()] };
            let attention = &model.parts()[3];
            assert_eq!((attention.kind, attention.remaining), (Kind::Attention(1), Some((1, 4))));
            assert!(attention.params.iter().all(|id| name(id).name.contains("layer.1.")));
        }
    }
}
