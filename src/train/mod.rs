//! Training: the optimizer, the schedule, the order of the texts, one step, and the loop around it; teachers, and what
//! students learn from them.
//!
//! ```text
//! trainer   the loop: steps, evaluations, the best weights, checkpoints, the end ── run       where it is, and its next step: training, examples
//! learner   one step: forward, loss, backward, clipping, AdamW ───────────────── optimizer, schedule, loss_scale, launched
//! order     which texts come when ────────────────────────────────────────────── filling   batches of sizes that come again
//! teacher   its logits, computed once ────────────────────────────────────────── feature_teacher   its states and attention, at each step: terms, layer_map
//! callback  what changes a network while it trains (gradual pruning, in compress)
//! state     all that the next step depends on, on disk ─── metrics, log   what is told of steps ─── progress   to people
//! ```

mod callback;
pub mod evaluate;
mod examples;
pub mod feature_teacher;
mod filling;
mod launched;
pub mod layer_map;
pub mod learner;
mod log;
mod loss_scale;
mod metrics;
mod mlm;
pub mod optimizer;
pub mod order;
pub mod progress;
mod run;
pub mod schedule;
mod state;
pub mod teacher;
pub mod terms;
mod trainer;
mod training;

pub use callback::{Callback, CallbackState, Event};
pub use examples::{BatchShard, Examples};
pub use feature_teacher::{FeatureDistillation, FeatureTeacher};
pub use learner::{Learner, LearnerView, Step};
pub use loss_scale::LossScale;
pub use mlm::MlmLoss;
pub use optimizer::{AdamW, AdamWSettings};
pub use order::Order;
pub use progress::{Progress, Silent, StepReport};
pub use schedule::Schedule;
pub use state::remove as forget_state;
pub use terms::Terms;
pub use trainer::train;
pub use training::{Training, TrainingOutcome};
