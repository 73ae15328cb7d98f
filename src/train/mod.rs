//! Training: the optimizer, the schedule, the order of the texts, one step, and the loop around it.

pub mod learner;
pub mod optimizer;
pub mod order;
pub mod schedule;

pub use learner::{Learner, Lesson, Step};
pub use optimizer::{AdamW, AdamWSettings};
pub use order::Order;
pub use schedule::Schedule;
