//! The operations, one folder each: its formula, the trait a device implements for it, the node that
//! records it for the backward pass, and the CPU's implementation in `cpu.rs`.
//!
//! A forward pass hands what the backward pass needs to a node; the backward pass adds into gradients and
//! never overwrites them.

mod activation;
pub mod attention;
pub mod blocks;
pub mod cosine;
pub mod dropout;
pub mod embedding;
pub mod gate;
pub mod linear;
pub mod loss;
pub mod mean_square;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod relation;
pub mod rounded;
pub mod select;
pub mod vocabulary;

use crate::backend::Device;

/// A device that can do everything a network needs.
pub trait Backend:
    Device
    + linear::LinearOps
    + norm::NormOps
    + attention::AttentionOps
    + embedding::EmbeddingOps
    + dropout::DropoutOps
    + pool::PoolOps
    + loss::LossOps
    + optimizer::AdamWOps
    + gate::GateOps
    + blocks::BlockOps
    + mean_square::MeanSquareOps
    + cosine::CosineOps
    + relation::RelationOps
    + rounded::RoundedOps
    + select::SelectOps
    + vocabulary::VocabularyOps
{
}

impl<D> Backend for D where
    D: Device
        + linear::LinearOps
        + norm::NormOps
        + attention::AttentionOps
        + embedding::EmbeddingOps
        + dropout::DropoutOps
        + pool::PoolOps
        + loss::LossOps
        + optimizer::AdamWOps
        + gate::GateOps
        + blocks::BlockOps
        + mean_square::MeanSquareOps
        + cosine::CosineOps
        + relation::RelationOps
        + rounded::RoundedOps
        + select::SelectOps
        + vocabulary::VocabularyOps
{
}
