//! Whether tokens relate in a student as they do in its teacher: attention maps, and relations of queries, keys or
//! values among themselves.
//!
//! For one text, with `a: [queries, n]` and `b: [tokens, n]` of the student and the teacher's `a'` and `b'`, a [`Map`] names
//! columns of each:
//!
//! ```text
//! P = mean over the student's columns r of softmax(a_r·b_rᵀ / √|r|)      Q the same of a' and b', of the teacher's
//! L = mean over rows and maps of KL(Q ‖ P) = Σ Q·log(Q / P)
//! ds_r = p_r ∘ (g - Σ g∘p_r)    g = -weight·Q / P / (rows · maps · |S|)   da_r = ds_r·b_r/√|r|   db_r = ds_rᵀ·a_r/√|r|
//! ```
//!
//! where `p_r` is the softmax of the columns r, and `|S|` how many of those the student's map is the mean of. With the
//! columns of one head, a query and a key, P is that head's attention (Wang et al., arXiv:2002.10957); with a tensor
//! and itself it is a relation in MiniLMv2's sense (arXiv:2012.15828), which needs neither as many heads in both
//! networks nor the same width. Every row (token) of the batch counts the same.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::backend::Device;
use crate::tensor::Tensor;
use std::ops::Range;

/// What makes one distribution of the student and the one that it is to be like: the columns of one head each, or of
/// several, whose distributions are averaged. Neither list is empty; a range may be, and then stands for a uniform
/// distribution, which is what a head of no columns computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Columns of the student's operands.
    pub student: Vec<Range<usize>>,
    /// Columns of the teacher's operands.
    pub teacher: Vec<Range<usize>>,
}

/// Relations on a device.
pub trait RelationOps: Device {
    /// `L`, and `weight · dL/da` and `weight · dL/db` of the student's `a` and `b`.
    ///
    /// `b` has a row for each token. `a` has one for each token or, where only first tokens were taken, for each text:
    /// of the teacher's rows of a text those are then the first.
    ///
    /// # Errors
    /// The device's.
    fn relation(
        &self,
        batch: &Batch,
        student: [&Tensor<Self>; 2],
        teacher: [&Tensor<Self>; 2],
        maps: &[Map],
        weight: f64,
    ) -> Result<(f64, [Tensor<Self>; 2])>;
}

/// `width` columns, shared out as evenly as may be among `heads`.
pub fn even(width: usize, heads: usize) -> Vec<Range<usize>> {
    (0..heads).map(|head| head * width / heads..(head + 1) * width / heads).collect()
}

#[cfg(test)]
mod tests {
    use super::even;

    #[test]
    fn columns_are_shared_out_evenly() {
        assert_eq!(even(12, 3), [0..4, 4..8, 8..12]);
        assert_eq!(even(7, 3), [0..2, 2..4, 4..7]);
        assert_eq!(even(1, 2), [0..0, 0..1]);
    }
}
