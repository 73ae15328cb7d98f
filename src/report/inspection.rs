//! What a model is made of, part by part: what `limbeck inspect` prints.

use super::cells::{aligned, dash, grouped, milliseconds, share};
use serde::Serialize;
use std::fmt;

/// One part of a model: the embeddings, one layer's attention, one layer's feed-forward, the head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// As `embeddings`, `layer 0 attention`, `layer 0 feed-forward`, `head`.
    pub name: String,
    /// Parameters that it holds.
    pub parameters: u64,
    /// Bytes that they take in the file.
    pub bytes: u64,
    /// Fraction of the parameters that are zero.
    pub sparsity: f64,
    /// Heads, or feed-forward units, that remain, and how many there were.
    pub remaining: Option<(usize, usize)>,
    /// Multiply-adds of the network for one text of [`Inspection::tokens`] tokens. A session may need fewer: in int8 it does
    /// without the last layer's projections of keys and values.
    pub multiply_adds: u64,
    /// Those of blocks that are not zero.
    pub multiply_adds_left: u64,
    /// Median milliseconds for one such text, if it was timed.
    pub ms_p50: Option<f64>,
}

/// The blocks of one matrix: 16 outputs by 4 inputs, a register of the packed int8 layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatrixBlocks {
    /// The matrix.
    pub name: String,
    /// Blocks that it has, smaller ones at its edges counted.
    pub blocks: usize,
    /// How many of them are zero.
    pub zero: usize,
}

/// What decoupled layers save for a pair of sentences of half the tokens each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decoupled {
    /// Layers in which each sentence attends to itself alone: the first ones.
    pub layers: usize,
    /// Of all.
    pub of: usize,
    /// Tokens of the sentences, special ones included.
    pub sentences: [usize; 2],
    /// Multiply-adds of the pair.
    pub multiply_adds: u64,
    /// How many of them are left once the first sentence is prepared.
    pub prepared: u64,
}

/// A model, part by part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The model's file or directory.
    pub model: String,
    /// Tokens of the text that multiply-adds and times are for.
    pub tokens: usize,
    /// In the order in which text flows through them.
    pub parts: Vec<Part>,
    /// Every matrix, in the same order.
    pub matrices: Vec<MatrixBlocks>,
    /// If layers of it are decoupled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoupled: Option<Decoupled>,
}

impl Inspection {
    /// The sum of all parts, its sparsity weighted by parameters.
    pub fn total(&self) -> Part {
        let sum = |of: fn(&Part) -> u64| self.parts.iter().map(of).sum::<u64>();
        let parameters = sum(|part| part.parameters);
        let zeros: f64 = self.parts.iter().map(|part| part.sparsity * part.parameters as f64).sum();
        Part {
            name: "total".into(),
            parameters,
            bytes: sum(|part| part.bytes),
            sparsity: zeros / parameters.max(1) as f64,
            remaining: None,
            multiply_adds: sum(|part| part.multiply_adds),
            multiply_adds_left: sum(|part| part.multiply_adds_left),
            ms_p50: self.parts.iter().map(|part| part.ms_p50).sum(),
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, for a text of {} tokens, timed on one thread", self.model, self.tokens)?;
        let mut lines = vec![
            [
                "part",
                "parameters",
                "bytes",
                "sparsity",
                "remain",
                "multiply-adds",
                "in blocks left",
                "p50 ms",
            ]
            .map(str::to_owned),
        ];
        for part in self.parts.iter().chain([&self.total()]) {
            lines.push([
                part.name.clone(),
                grouped(part.parameters),
                grouped(part.bytes),
                share(part.sparsity),
                dash(part.remaining, |(now, once)| format!("{now} of {once}")),
                grouped(part.multiply_adds),
                grouped(part.multiply_adds_left),
                dash(part.ms_p50, milliseconds),
            ]);
        }
        f.write_str(&aligned(&lines))?;
        if let Some(Decoupled { layers, of, sentences: [first, second], multiply_adds, prepared }) =
            &self.decoupled
        {
            writeln!(
                f,
                "\n{layers} of {of} layers are decoupled: a pair of {first} and {second} tokens takes {} multiply-adds, and {} \
                 ({}) once its first sentence is prepared",
                grouped(*multiply_adds),
                grouped(*prepared),
                share(*prepared as f64 / *multiply_adds as f64)
            )?;
        }
        let sparse: Vec<&MatrixBlocks> = self.matrices.iter().filter(|matrix| matrix.zero > 0).collect();
        if sparse.is_empty() {
            return Ok(());
        }
        let mut lines = vec![["matrix", "16×4 blocks", "zero", "share"].map(str::to_owned)];
        lines.extend(sparse.into_iter().map(|matrix| {
            [
                matrix.name.clone(),
                grouped(matrix.blocks as u64),
                grouped(matrix.zero as u64),
                share(matrix.zero as f64 / matrix.blocks as f64),
            ]
        }));
        write!(f, "\n{}", aligned(&lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_sums_parts() {
        let part = |parameters, sparsity, ms_p50| Part {
            name: "x".into(),
            parameters,
            bytes: 4 * parameters,
            sparsity,
            remaining: Some((7, 12)),
            multiply_adds: 10,
            multiply_adds_left: 7,
            ms_p50,
        };
        let mut inspection = Inspection {
            model: "m".into(),
            tokens: 64,
            parts: vec![part(300, 0.5, Some(1.5)), part(100, 0.1, Some(0.5))],
            matrices: vec![MatrixBlocks { name: "dense".into(), blocks: 9, zero: 0 }],
            decoupled: None,
        };
        let total = inspection.total();
        assert_eq!(
            (total.parameters, total.bytes, total.multiply_adds, total.multiply_adds_left, total.ms_p50),
            (400, 1600, 20, 14, Some(2.0))
        );
        assert!((total.sparsity - 0.4).abs() <= 1e-12);
        let text = inspection.to_string();
        assert!(text.contains("7 of 12") && !text.contains("dense"), "{text}");
        inspection.matrices.push(MatrixBlocks { name: "sparse".into(), blocks: 1200, zero: 900 });
        let text = inspection.to_string();
        assert!(text.contains("1,200") && text.contains("75.0 %") && !text.contains("dense"), "{text}");
        assert!(!text.contains("decoupled"), "{text}");
        let sentences = [32, 32];
        let decoupled = Decoupled { layers: 3, of: 6, sentences, multiply_adds: 2_000, prepared: 1_500 };
        inspection.decoupled = Some(decoupled);
        let text = inspection.to_string();
        assert!(text.contains("3 of 6 layers") && text.contains("1,500 (75.0 %) once"), "{text}");
        inspection.parts[1].ms_p50 = None;
        assert_eq!(inspection.total().ms_p50, None, "a sum that lacks a part is no sum");
    }
}
