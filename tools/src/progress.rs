//! How far a stage is, on standard error: bars on a terminal, now and then a line elsewhere, nothing with
//! `--quiet`.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::report::cells::grouped;
use limbeck::stages::{Progress, Silent, StepReport};
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The kind of progress that suits standard error.
pub fn choose(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Silent)
    } else if io::stderr().is_terminal() {
        Box::new(Bars::default())
    } else {
        Box::new(Lines::new(io::stderr()))
    }
}

/// A bar for what is under way; messages scroll past above it.
#[derive(Default)]
struct Bars(RefCell<Option<ProgressBar>>);

impl Bars {
    fn bar(&self, action: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.0.borrow().as_ref() {
            action(bar);
        }
    }
}

impl Progress for Bars {
    fn begin(&self, stage: &str, total_steps: u64) {
        let (bar, style) = match total_steps {
            0 => (ProgressBar::no_length(), "{prefix} {spinner} {elapsed} {msg}"),
            n => (ProgressBar::new(n), "{prefix} [{bar:24}] {pos}/{len} {msg} {eta} left"),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        bar.set_style(ProgressStyle::with_template(style).expect("a template of ours").progress_chars("=> "));
        bar.set_prefix(stage.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        *self.0.borrow_mut() = Some(bar);
    }

    fn step(&self, report: StepReport) {
        self.bar(|bar| {
            bar.set_position(report.step);
            bar.set_message(summary(&report));
        });
    }

    fn advance(&self, steps: u64) {
        self.bar(|bar| bar.inc(steps));
    }

    fn message(&self, text: &str) {
        match self.0.borrow().as_ref() {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = self.0.borrow_mut().take() {
            let (stage, time) = (bar.prefix(), clock_time(bar.elapsed()));
            let last = bar.message();
            bar.finish_and_clear();
            eprintln!("{}", ended(&stage, &time, &last));
        }
    }
}

impl Drop for Bars {
    /// What fails ends without a word of its own: the error comes below a clean line.
    fn drop(&mut self) {
        if let Some(bar) = self.0.get_mut().take() {
            bar.finish_and_clear();
        }
    }
}

/// Least time between two lines about the same stage.
const PAUSE: Duration = Duration::from_secs(10);

/// A line when something begins and ends, and at most every ten seconds between.
struct Lines<W: Write>(RefCell<LinesState<W>>);

struct LinesState<W> {
    out: W,
    stage: String,
    total: u64,
    done: u64,
    /// Where a resumed training began, so that the time left is that of the steps really done.
    from: Option<u64>,
    last: String,
    began: Instant,
    printed: Instant,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Lines<W> {
        let now = Instant::now();
        let (stage, last) = (String::new(), String::new());
        Lines(RefCell::new(LinesState {
            out,
            stage,
            total: 0,
            done: 0,
            from: None,
            last,
            began: now,
            printed: now,
        }))
    }
}

impl<W: Write> LinesState<W> {
    /// Standard error may be closed; progress is not worth failing for.
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        self.printed = Instant::now();
    }

    fn now_and_then(&mut self) {
        if self.printed.elapsed() < PAUSE {
            return;
        }
        let (stage, done) = (&self.stage, self.done);
        let mut text = match self.total {
            0 => format!("{stage} {done}"),
            total => format!("{stage} {done}/{total}"),
        };
        if !self.last.is_empty() {
            text += &format!(" {}", self.last);
        }
        let here = done - self.from.unwrap_or(0);
        if here > 0 && self.total > done {
            let left = self.began.elapsed().mul_f64((self.total - done) as f64 / here as f64);
            text += &format!(" {} left", clock_time(left));
        }
        self.line(&text);
    }
}

impl<W: Write> Progress for Lines<W> {
    fn begin(&self, stage: &str, total_steps: u64) {
        let mut state = self.0.borrow_mut();
        (state.stage, state.total, state.done, state.from) = (stage.to_owned(), total_steps, 0, None);
        state.last.clear();
        state.began = Instant::now();
        state.line(&format!("{stage} ..."));
    }

    fn step(&self, report: StepReport) {
        let mut state = self.0.borrow_mut();
        state.from.get_or_insert(report.step.saturating_sub(1));
        state.done = report.step;
        state.last = summary(&report);
        state.now_and_then();
    }

    fn advance(&self, steps: u64) {
        let mut state = self.0.borrow_mut();
        state.done += steps;
        state.now_and_then();
    }

    fn message(&self, text: &str) {
        self.0.borrow_mut().line(text);
    }

    fn end(&self) {
        let mut state = self.0.borrow_mut();
        let text = ended(&state.stage, &clock_time(state.began.elapsed()), &state.last);
        state.line(&text);
    }
}

fn ended(stage: &str, time: &str, last: &str) -> String {
    if last.is_empty() { format!("{stage}: {time}") } else { format!("{stage}: {time}, {last}") }
}

fn summary(report: &StepReport) -> String {
    let terms: Vec<String> =
        report.terms.present().map(|(name, value)| format!("{name} {value:.4}")).collect();
    let terms = if terms.is_empty() { String::new() } else { format!(" ({})", terms.join(", ")) };
    format!("loss {:.4}{terms}  {} tokens/s", report.loss, grouped(report.tokens_per_second as u64))
}

/// `75 s` as `1:15`, with hours when there are any.
fn clock_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 if seconds < 60 => format!("{:.1} s", time.as_secs_f64()),
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck::train::Terms;

    #[test]
    fn lines_are_few_and_whole() {
        let lines = Lines::new(Vec::new());
        lines.begin("train", 100);
        for step in 1..=100 {
            let terms = Terms { cosine: Some(0.125), ..Terms::default() };
            lines.step(StepReport {
                step,
                loss: 0.25,
                learning_rate: 1e-4,
                terms,
                tokens_per_second: 12_345.6,
            });
        }
        lines.message("epoch 1: 90 %");
        lines.end();
        let text = String::from_utf8(lines.0.into_inner().out).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found[..2], ["train ...", "epoch 1: 90 %"], "ten seconds have not passed");
        assert!(
            found[2].starts_with("train: ")
                && found[2].ends_with("s, loss 0.2500 (cosine 0.1250)  12,345 tokens/s"),
            "{text}"
        );
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn times_read_as_clocks() {
        let times = [2, 75, 3675].map(|seconds| clock_time(Duration::from_secs(seconds)));
        assert_eq!(times, ["2.0 s", "1:15", "1:01:15"]);
    }
}
