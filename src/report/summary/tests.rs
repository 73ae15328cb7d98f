use super::*;
use crate::report::machine::{Build, Machine};
use limbeck_kernels::Kernels;

fn figures(variant: &str, accuracy: f64, bytes: u64, speed_up: f64) -> RowMetrics {
    RowMetrics {
        variant: variant.into(),
        accuracy,
        accuracy_low: accuracy - 0.01,
        accuracy_high: accuracy + 0.01,
        p_value: (variant != "baseline").then_some(0.25),
        file_bytes: bytes,
        parameters: bytes,
        sparsity: 0.0,
        latency_ms_p50: Some(8.0 / speed_up),
        latency_ms_p95: None,
        latency_ms_p99: None,
        speed_up: Some(speed_up),
        macro_f1: accuracy,
        texts: 100,
        tokens: None,
        texts_hash: None,
        only_baseline_right: None,
        only_variant_right: None,
    }
}

fn trial(setting: &str, seed: u64, accuracy: f64, bytes: u64, speed_up: f64) -> FinishedTrial {
    let build = Build { version: "0".into(), commit: "c".into(), rustc: "r".into() };
    let baseline = 0.93 + 0.001 * seed as f64;
    FinishedTrial {
        id: format!("{setting}_seed-{seed}"),
        setting: setting.into(),
        seed,
        table: Table {
            recipe: "r".into(),
            rows: vec![
                figures("baseline", baseline, 1 << 24, 1.0),
                figures("int8", accuracy, bytes, speed_up),
                figures("n-grams", 0.9, 1 << 20, 900.0),
            ],
            machine: Machine::here(Kernels::select().unwrap(), 1, build),
            seed,
            latency_threads: 1,
        },
    }
}

fn named<'a>(summary: &'a Summary, name: &str) -> &'a Point {
    summary.points.iter().find(|point| point.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn seeds_are_averaged_and_references_stand_once() {
    let summary = Summary::of(
        &[
            trial("a", 1, 0.92, 4000, 4.0),
            trial("b", 1, 0.91, 2000, 5.0),
            trial("a", 2, 0.94, 6000, 4.0),
            trial("b", 2, 0.91, 2000, 5.0),
        ],
        "int8",
    );
    let names: Vec<&str> = summary.points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(names, ["baseline", "n-grams", "b", "a"]);
    let a = named(&summary, "a");
    assert!((a.accuracy.mean - 0.93).abs() <= 1e-12 && a.file_bytes == 5000.0 && a.trials.len() == 2);
    let ratios = [4000.0, 6000.0].map(|bytes| f64::from(1 << 24) / bytes);
    assert!((a.times_smaller - (ratios[0] + ratios[1]) / 2.0).abs() <= 1e-9 && a.speed_up == Some(4.0));
    // Two values 0.01 from their mean: s / √2 = 0.01, and t is 12.7062.
    assert!((a.accuracy.low - 0.93 + 0.127062).abs() <= 1e-6 && a.accuracy.high == 1.0, "{a:?}");
    // Baselines 0.931 and 0.932.
    assert!(
        (a.accuracy.difference + 0.0015).abs() <= 1e-12
            && a.accuracy.difference_interval.is_some()
            && a.accuracy.p_value.is_none()
    );
    let baseline = named(&summary, "baseline");
    assert!(baseline.reference && baseline.trials.len() == 2 && baseline.accuracy.difference == 0.0);
    let alone = Summary::of(&[trial("a", 1, 0.92, 4000, 4.0)], "int8");
    let point = named(&alone, "a");
    assert_eq!(
        (point.accuracy.low, point.accuracy.p_value, point.accuracy.difference_interval),
        (0.91, Some(0.25), None)
    );
}

/// Controls, and baselines, that differ at the same seed have the names of their settings.
#[test]
fn references_that_differ_stand_apart() {
    let mut trials: Vec<FinishedTrial> = ["a", "b", "c", "d"]
        .into_iter()
        .flat_map(|setting| [1, 2].map(|seed| trial(setting, seed, 0.92, 4000, 4.0)))
        .collect();
    let control = |bytes| figures("int8 baseline", 0.925, bytes, 3.0);
    for (number, trial) in trials.iter_mut().enumerate().take(6) {
        trial.table.rows.push(control(if (2..4).contains(&number) { 9000 } else { 7000 }));
    }
    let references = |trials: &[FinishedTrial]| -> Vec<(String, usize, f64)> {
        let points = Summary::of(trials, "int8").points.into_iter().filter(|point| point.reference);
        points.map(|point| (point.name, point.trials.len(), point.file_bytes)).collect()
    };
    let found = references(&trials);
    assert_eq!(found[0], ("baseline".into(), 2, f64::from(1 << 24)));
    assert_eq!(found[2], ("int8 baseline (a, c)".into(), 2, 7000.0));
    assert_eq!(found[3], ("int8 baseline (b)".into(), 2, 9000.0));
    assert_eq!(found.len(), 4, "d has none");
    trials[6].table.rows[0].accuracy = 0.5;
    let found = references(&trials);
    assert_eq!((found[0].0.as_str(), found[1].0.as_str()), ("baseline (a and 2 more)", "baseline (d)"));
}

#[test]
fn fronts_hold_what_nothing_beats() {
    let mut summary = Summary::of(
        &[
            trial("small", 1, 0.90, 1000, 8.0),
            trial("worse", 1, 0.89, 2000, 2.0),
            trial("middle", 1, 0.92, 3000, 2.0),
            trial("equal", 1, 0.92, 3000, 1.0),
            trial("large", 1, 0.93, 9000, 4.0),
        ],
        "int8",
    );
    let front = |summary: &Summary| -> Vec<String> {
        summary.points.iter().filter(|p| p.front_of_bytes).map(|p| p.name.clone()).collect()
    };
    assert_eq!(front(&summary), ["small", "equal", "middle", "large"]);
    assert!(summary.points.iter().all(|point| !point.front_of_milliseconds));
    assert_eq!(summary.candidates().len(), 5, "of few, all");
    let many: Vec<FinishedTrial> = (0..33)
        .map(|number| {
            trial(
                &format!("{number:02}"),
                1,
                0.9 - 0.01 * f64::from(number / 32),
                1000 + number as u64,
                8.0 - 0.2 * f64::from(number),
            )
        })
        .collect();
    let many = Summary::of(&many, "int8");
    assert_eq!(
        (many.candidates().len(), many.candidates().contains(&"32_seed-1")),
        (32, false),
        "the first is better, smaller and faster"
    );
    summary.set_timed(|name| {
        let (milliseconds, times_fewer_multiply_adds) = match name {
            "small_seed-1" => (1.0, Some(8.0)),
            "middle_seed-1" => (4.0, Some(4.0)),
            "equal_seed-1" => (3.9, None),
            "large_seed-1" => (2.0, Some(2.0)),
            "baseline" => (0.001, Some(1.0)),
            _ => return None,
        };
        Some(Timed { milliseconds, times_fewer_multiply_adds })
    });
    let fewer = |name| named(&summary, name).times_fewer_multiply_adds;
    assert_eq!(
        ["small", "large", "equal", "baseline", "n-grams"].map(fewer),
        [Some(8.0), Some(2.0), None, Some(1.0), None]
    );
    let fast: Vec<&str> =
        summary.points.iter().filter(|p| p.front_of_milliseconds).map(|p| p.name.as_str()).collect();
    assert_eq!(fast, ["small", "large"], "references are no part of it");
    assert_eq!(summary.panels().len(), 2);
    assert_eq!(summary.panels()[1].marks.len(), 5, "what was not timed is not drawn");
    assert_eq!((summary.lines()[1][7].as_str(), summary.lines()[1][9].as_str()), ("1.00×", "–"));
}

#[test]
fn the_smallest_that_passes_is_chosen() {
    let summary = Summary::of(&[trial("a", 1, 0.929, 4000, 4.0), trial("b", 1, 0.921, 2000, 5.0)], "int8");
    let chosen = |drop| summary.smallest_within(drop).map(|point| point.name.as_str());
    assert_eq!((chosen(1.2), chosen(0.5), chosen(0.1)), (Some("b"), Some("a"), None));
    assert_eq!(Summary::of(&[], "int8").smallest_within(5.0), None);
}
