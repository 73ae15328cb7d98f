//! Training: the optimizer, the schedule, the order of the texts, one step, and the loop around it; teachers, and what
//! students learn from them.

mod begun;
mod companion;
pub mod evaluate;
mod filling;
pub mod layer_map;
pub mod learner;
mod log;
mod loss_scale;
mod masked;
mod metrics;
pub mod optimizer;
pub mod order;
pub mod progress;
mod run;
pub mod schedule;
mod state;
pub mod teacher;
pub mod terms;
mod trainer;
pub mod tutor;

pub use companion::{Companion, CompanionState, Event};
pub use learner::{Learner, Lesson, Seen, Step};
pub use loss_scale::LossScale;
pub use masked::Masked;
pub use optimizer::{AdamW, AdamWSettings};
pub use order::Order;
pub use progress::{Progress, Silent, StepReport};
pub use schedule::Schedule;
pub use state::remove as forget_state;
pub use terms::Terms;
pub use trainer::{Trained, Training, train};
pub use tutor::{Inside, Tutor};
