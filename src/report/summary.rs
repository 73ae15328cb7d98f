//! Many runs side by side: what each setting of a sweep costs and is worth, over its seeds.
//!
//! ```text
//! report.json of each trial ──► a point for each setting: means, intervals ──► fronts ──► table · JSON · picture
//! ```
//!
//! Accuracies and sizes are those that the runs measured. Latencies that were measured in different processes cannot be
//! compared, so a point has none until its files were timed together ([`Point::milliseconds`]).

use super::cells::{dash, mib, milliseconds, times};
use super::over_seeds::Accuracy;
use super::picture::{Kind, Mark, Panel, Scale};
use super::statistics::{Interval, exceeds, mean};
use super::table::{RowMetrics, Table};
use crate::stages::Stage;
use serde::Serialize;

/// Up to so many trials, all are timed together; of more, those that may be on a front.
const ALL_TIMED: usize = 32;

/// A setting whose time, as its own run compared it, is this much beyond the front's may yet be on it when all are timed
/// together.
const DOUBT: f64 = 0.85;

/// A trial that has its report.
#[derive(Clone, Debug)]
pub struct FinishedTrial {
    /// Its name.
    pub id: String,
    /// What is tried; shared by the trials of other seeds.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// What its run measured.
    pub table: Table,
}

/// A setting, or something to compare settings with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The setting's name, or the variant's if it is a reference.
    pub name: String,
    /// Which row of its trials' tables it is the mean of.
    pub variant: String,
    /// Whether it is no setting but the baseline or a control, which settings share.
    pub reference: bool,
    /// The trials that it is the mean of, one for each seed.
    pub trials: Vec<String>,
    /// Of the trials' variant, against the same runs' baselines.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Mean bytes of the file.
    pub file_bytes: f64,
    /// Mean of how many times smaller than the same run's baseline it is.
    pub times_smaller: f64,
    /// Mean of how many times fewer multiply-adds than the same run's baseline it takes for a text of the test texts' mean length,
    /// as each reads them; those of zero blocks are not counted. What the speed-up would be if nothing but products took time.
    pub times_fewer_multiply_adds: Option<f64>,
    /// Mean of how many times faster than the same run's baseline it is, as the runs measured it.
    pub speed_up: Option<f64>,
    /// Mean of the median latencies, all points timed in one process.
    pub milliseconds: Option<f64>,
    /// Whether no setting is at least as accurate and at most as large, and better in one of the two.
    pub front_of_bytes: bool,
    /// Whether no setting is at least as accurate and at most as slow, and better in one of the two.
    pub front_of_milliseconds: bool,
}

/// A file, measured beside the others of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Median latency, in turns with all others.
    pub milliseconds: f64,
    /// How many times fewer multiply-adds than its run's baseline it takes; `None` of what is no network.
    pub times_fewer_multiply_adds: Option<f64>,
}

/// All points of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// References first, then settings from the smallest file to the largest.
    pub points: Vec<Point>,
}

impl Summary {
    /// Of one `variant` of each trial, as `int8`; trials in any order, without latencies.
    pub fn of(finished: &[FinishedTrial], variant: &str) -> Summary {
        let mut points = references(finished);
        let mut settings: Vec<&str> = finished.iter().map(|trial| trial.setting.as_str()).collect();
        settings.sort_unstable();
        settings.dedup();
        let first = points.len();
        for setting in settings {
            let rows: Vec<(&FinishedTrial, &RowMetrics)> = finished
                .iter()
                .filter(|trial| trial.setting == setting)
                .filter_map(|trial| Some((trial, row(trial, variant)?)))
                .collect();
            points.extend(point(setting, variant, false, &rows));
        }
        points[first..].sort_by(|a, b| a.file_bytes.total_cmp(&b.file_bytes));
        let mut summary = Summary { points };
        summary.find_fronts();
        summary
    }

    /// Gives each trial, or reference by its name, what was measured, and finds the front of times. A point without the
    /// times of all its trials gets none.
    pub fn set_timed(&mut self, timed: impl Fn(&str) -> Option<Timed>) {
        for point in &mut self.points {
            let found: Option<Vec<Timed>> = match point.reference {
                true => timed(&point.name).map(|timed| vec![timed]),
                false => point.trials.iter().map(|trial| timed(trial)).collect(),
            };
            let Some(found) = found else { continue };
            let times: Vec<f64> = found.iter().map(|timed| timed.milliseconds).collect();
            let fewer: Option<Vec<f64>> = found.iter().map(|timed| timed.times_fewer_multiply_adds).collect();
            point.milliseconds = Some(mean(&times));
            point.times_fewer_multiply_adds = fewer.map(|fewer| mean(&fewer));
        }
        self.find_fronts();
    }

    fn find_fronts(&mut self) {
        let settings = |cost: fn(&Point) -> Option<f64>| -> Vec<bool> {
            let costs: Vec<Option<[f64; 2]>> = self
                .points
                .iter()
                .map(|point| Some([cost(point)?, point.accuracy.mean]).filter(|_| !point.reference))
                .collect();
            let beaten = |[cost, accuracy]: [f64; 2]| {
                costs.iter().flatten().any(|[other, better]| {
                    *other <= cost && *better >= accuracy && (*other < cost || *better > accuracy)
                })
            };
            costs.iter().map(|place| place.is_some_and(|place| !beaten(place))).collect()
        };
        let bytes = settings(|point| Some(point.file_bytes));
        let times = settings(|point| point.milliseconds);
        for (point, (bytes, time)) in self.points.iter_mut().zip(bytes.into_iter().zip(times)) {
            (point.front_of_bytes, point.front_of_milliseconds) = (bytes, time);
        }
    }

    /// Trials to be timed together: all, or of many those that may be on a front, which no other beats in accuracy, size and
    /// time, their own runs' times being taken with a grain of salt.
    pub fn candidates(&self) -> Vec<&str> {
        let settings = || self.points.iter().filter(|point| !point.reference);
        let few = settings().map(|point| point.trials.len()).sum::<usize>() <= ALL_TIMED;
        let time = |point: &Point| point.speed_up.map_or(0.0, |times| 1.0 / times);
        let beaten = |point: &&Point| {
            self.points.iter().any(|other| {
                !other.reference
                    && other.accuracy.mean > point.accuracy.mean
                    && other.file_bytes < point.file_bytes
                    && time(other) < DOUBT * time(point)
            })
        };
        let points = settings().filter(|point| few || !beaten(point));
        points.flat_map(|point| point.trials.iter().map(String::as_str)).collect()
    }

    /// References to be timed with the candidates: all, or of many the first of each variant.
    pub fn timed_references(&self) -> impl Iterator<Item = &Point> {
        let references = || self.points.iter().filter(|point| point.reference);
        let few = references().count() <= ALL_TIMED;
        let mut variants: Vec<&str> = Vec::new();
        references().filter(move |point| {
            let is_first = !variants.contains(&point.variant.as_str());
            variants.push(&point.variant);
            few || is_first
        })
    }

    /// The setting with the smallest file that is at most so many points of accuracy below its baseline.
    pub fn smallest_within(&self, max_drop: f64) -> Option<&Point> {
        let settings = self.points.iter().filter(|point| !point.reference);
        settings
            .filter(|point| !exceeds(-100.0 * point.accuracy.difference, max_drop))
            .min_by(|a, b| a.file_bytes.total_cmp(&b.file_bytes))
    }

    /// The table: headings, then a line for each point.
    pub fn lines(&self) -> Vec<[String; 10]> {
        const HEADINGS: [&str; 10] = [
            "setting",
            "seeds",
            "accuracy % (95 %)",
            "Δ points",
            "MiB",
            "smaller",
            "p50 ms",
            "fewer mult-adds",
            "speed-up",
            "front",
        ];
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.points.iter().map(Point::cells));
        lines
    }

    /// Accuracy against bytes, and against milliseconds if there are any.
    pub fn panels(&self) -> Vec<Panel> {
        let panel = |cost: &str, scale, of: fn(&Point) -> (Option<f64>, bool)| Panel {
            cost: cost.to_owned(),
            scale,
            marks: self.points.iter().filter_map(|point| point.mark(of(point))).collect(),
        };
        let bytes = panel("size of the file, MiB (logarithmic)", Scale::Logarithmic, |point| {
            (Some(point.file_bytes / f64::from(1 << 20)), point.front_of_bytes)
        });
        let times = panel("median latency of a text alone, ms (logarithmic)", Scale::Logarithmic, |point| {
            (point.milliseconds, point.front_of_milliseconds)
        });
        if times.marks.is_empty() { vec![bytes] } else { vec![bytes, times] }
    }
}

impl Point {
    fn cells(&self) -> [String; 10] {
        let fronts = match (self.reference, self.front_of_bytes, self.front_of_milliseconds) {
            (true, ..) => "–",
            (_, true, true) => "size, time",
            (_, true, false) => "size",
            (_, false, true) => "time",
            (_, false, false) => "",
        };
        [
            self.name.clone(),
            self.trials.len().to_string(),
            self.accuracy.cell(),
            self.accuracy.difference_cell(),
            mib(self.file_bytes),
            times(self.times_smaller),
            dash(self.milliseconds, milliseconds),
            dash(self.times_fewer_multiply_adds, times),
            dash(self.speed_up, times),
            fronts.to_owned(),
        ]
    }

    fn mark(&self, (cost, front): (Option<f64>, bool)) -> Option<Mark> {
        let kind = match (self.reference, front) {
            (true, _) => Kind::Reference,
            (false, true) => Kind::Front,
            (false, false) => Kind::Dominated,
        };
        let Accuracy { mean, low, high, .. } = self.accuracy;
        let accuracy = [mean, low, high].map(|fraction| 100.0 * fraction);
        cost.filter(|cost| *cost > 0.0).map(|cost| Mark { name: self.name.clone(), cost, accuracy, kind })
    }
}

fn row<'a>(trial: &'a FinishedTrial, variant: &str) -> Option<&'a RowMetrics> {
    trial.table.rows.iter().find(|row| row.variant == variant)
}

/// The baseline and the controls. Settings with the same ones share a point; where controls depend on the setting, as the
/// unpruned int8 model does on how it is quantized, each has its settings' names.
fn references(finished: &[FinishedTrial]) -> Vec<Point> {
    let mut variants: Vec<&str> = Vec::new();
    for row in finished.iter().flat_map(|trial| &trial.table.rows) {
        let own = Stage::ALL[1..].iter().any(|stage| stage.variant() == row.variant);
        if !own && !variants.contains(&row.variant.as_str()) {
            variants.push(&row.variant);
        }
    }
    variants.iter().flat_map(|variant| references_of(variant, finished)).collect()
}

/// A variant of each setting, over its seeds; of settings whose seeds all found the same, the first.
fn references_of(variant: &str, finished: &[FinishedTrial]) -> Vec<Point> {
    type Rows<'a> = Vec<(&'a FinishedTrial, &'a RowMetrics)>;
    let mut settings: Vec<&str> = Vec::new();
    let mut groups: Vec<(Vec<&str>, Rows<'_>)> = Vec::new();
    for FinishedTrial { setting, .. } in finished {
        if settings.contains(&setting.as_str()) {
            continue;
        }
        settings.push(setting);
        let trials = finished.iter().filter(|trial| trial.setting == *setting);
        let rows: Rows<'_> = trials.filter_map(|trial| Some((trial, row(trial, variant)?))).collect();
        if rows.is_empty() {
            continue;
        }
        let agrees = |known: &Rows<'_>| {
            rows.iter().all(|(trial, row)| {
                known
                    .iter()
                    .filter(|(other, _)| other.seed == trial.seed)
                    .all(|(_, other)| (other.accuracy, other.file_bytes) == (row.accuracy, row.file_bytes))
            })
        };
        match groups.iter_mut().find(|(_, known)| agrees(known)) {
            Some((names, known)) => {
                names.push(setting);
                let missing = |(trial, _): &(&FinishedTrial, &RowMetrics)| {
                    known.iter().all(|(other, _)| other.seed != trial.seed)
                };
                let more: Rows<'_> = rows.iter().copied().filter(missing).collect();
                known.extend(more);
            }
            None => groups.push((vec![setting], rows)),
        }
    }
    let alone = groups.len() == 1;
    let name = |settings: &[&str]| match settings {
        _ if alone => variant.to_owned(),
        [first, _, _, ..] => format!("{variant} ({first} and {} more)", settings.len() - 1),
        _ => format!("{variant} ({})", settings.join(", ")),
    };
    groups.iter().filter_map(|(settings, rows)| point(&name(settings), variant, true, rows)).collect()
}

/// The means over trials of different seeds; `None` of none.
fn point(
    name: &str,
    variant: &str,
    reference: bool,
    rows: &[(&FinishedTrial, &RowMetrics)],
) -> Option<Point> {
    let (_, first) = rows.first()?;
    let accuracies: Vec<[f64; 2]> =
        rows.iter().map(|(trial, row)| [row.accuracy, trial.table.rows[0].accuracy]).collect();
    let of_texts = Interval { low: first.accuracy_low, high: first.accuracy_high };
    let accuracy = Accuracy::over_seeds(&accuracies, of_texts, first.p_value);
    let is_baseline = reference && variant == Stage::Train.variant();
    let smaller = |(trial, row): &(&FinishedTrial, &RowMetrics)| {
        trial.table.rows[0].file_bytes as f64 / row.file_bytes.max(1) as f64
    };
    let speeds: Option<Vec<f64>> = rows.iter().map(|(_, row)| row.speed_up).collect();
    Some(Point {
        name: name.to_owned(),
        variant: variant.to_owned(),
        reference,
        trials: rows.iter().map(|(trial, _)| trial.id.clone()).collect(),
        accuracy: if is_baseline { accuracy.itself() } else { accuracy },
        file_bytes: mean(&rows.iter().map(|(_, row)| row.file_bytes as f64).collect::<Vec<_>>()),
        times_smaller: mean(&rows.iter().map(smaller).collect::<Vec<_>>()),
        times_fewer_multiply_adds: None,
        speed_up: speeds.map(|speeds| mean(&speeds)),
        milliseconds: None,
        front_of_bytes: false,
        front_of_milliseconds: false,
    })
}

#[cfg(test)]
mod tests;
