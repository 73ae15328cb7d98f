//! What a run says at its end: how good, how sure, how large, how fast, and on which machine.
//!
//! [`statistics`] turns predictions into accuracies, intervals and p-values; [`latency`] times variants
//! against each other; [`machine`] says where; [`table`] puts it all side by side, for people and as
//! `report.json`. None of these knows how a prediction is made: [`measure`] asks whatever is a `Subject`.
//! [`inspect()`] looks into one model instead, part by part.

mod inspect;
pub mod inspection;
pub mod latency;
pub mod machine;
pub mod measure;
pub mod statistics;
pub mod table;

pub use inspect::inspect;
pub use inspection::{Inspection, MatrixBlocks, Part};
pub use latency::Latency;
pub use machine::{Build, Machine};
pub use statistics::{Confusion, Interval, Paired};
pub use table::{Report, Row, Table};
