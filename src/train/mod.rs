//! Training: the optimizer, the schedule, the order of the texts, one step, and the loop around it.

pub mod evaluate;
pub mod learner;
mod metrics;
pub mod optimizer;
pub mod order;
pub mod progress;
pub mod schedule;
mod state;
pub mod teacher;
mod trainer;

pub use learner::{Learner, Lesson, Seen, Step};
pub use optimizer::{AdamW, AdamWSettings};
pub use order::Order;
pub use progress::{Progress, Silent, StepReport};
pub use schedule::Schedule;
pub use state::remove as forget_state;
pub use trainer::{Companion, Trained, Training, train};
