//! What a run says at its end: how good, how sure, how large, how fast, and on which machine.
//!
//! [`statistics`] turns predictions into accuracies, intervals and p-values; [`latency`] times variants
//! against each other; [`machine`] says where; [`table`] puts it all side by side, for people and as
//! `report.json`. None of these knows how a prediction is made: [`measure`] asks whatever is a `MeasuredModel`.
//! [`inspect()`] looks into one model instead, part by part. [`summary`] puts many runs side by side, and [`picture`]
//! draws what they cost against what they are worth; [`ablation`] says what the parts of a recipe contributed; both
//! take accuracies [`over_seeds`]. [`cells`] is how all of them write a figure.

pub mod ablation;
pub mod cells;
mod inspect;
pub mod inspection;
pub mod latency;
pub mod machine;
pub mod measure;
pub mod over_seeds;
pub mod picture;
mod sensitivity;
pub mod statistics;
pub mod summary;
pub mod table;

pub use ablation::Contribution;
pub use inspect::inspect;
pub use inspection::{Inspection, MatrixBlocks, Part};
pub use latency::Latency;
pub use machine::{Build, Machine};
pub use over_seeds::Accuracy;
pub use statistics::{Confusion, Interval, Paired};
pub use summary::{FinishedTrial, Point, Summary, Timed};
pub use table::{Report, Row, Table};
