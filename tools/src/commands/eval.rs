//! `limbeck eval`: how good a model is on a file of labelled texts, and whether another is better.

use super::gate;
use crate::cli::{self, Device, Eval};
use crate::failure::Failure;
use crate::output::Output;
use crate::{engine, progress};
use limbeck::backend::cpu::threads::set_threads;
use limbeck::report::cells::{aligned, grouped, p_value, percent, points};
use limbeck::report::measure::{Texts, answers};
use limbeck::report::{Confusion, Paired};
use serde_json::{Value, json};
use std::path::Path;

/// One model's answers.
struct Answers {
    confusion: Confusion,
    labels: Vec<String>,
    /// What stands for each class in the data.
    label_values: Vec<String>,
    /// Whether text i was classified rightly.
    right: Vec<bool>,
}

pub fn eval(typed: &Eval) -> Result<(), Failure> {
    set_threads(cli::threads(typed.common.threads.unwrap_or(0)))?;
    let first = answers_of(&typed.model, typed)?;
    let other = typed.against.as_deref().map(|model| answers_of(model, typed)).transpose()?;
    let pair = other.as_ref().map(|other| {
        let mut pair = Paired::default();
        other.right.iter().zip(&first.right).for_each(|(other, first)| pair.record(*other, *first));
        pair
    });
    let mut output = Output::new();
    if typed.common.json {
        let mut value = to_json(&first);
        if let (Some(other), Some(pair)) = (&other, pair) {
            value["against"] = to_json(other);
            value["p_value"] = json!(pair.p_value());
            value["only_against_right"] = json!(pair.only_first);
            value["only_model_right"] = json!(pair.only_second);
        }
        output.json(&value)?;
    } else {
        output.text(classes(&first))?;
        output.text(to_text(&typed.model, &first))?;
        if let (Some(model), Some(other), Some(pair)) = (&typed.against, &other, pair) {
            output.text("\n")?;
            if (&other.labels, &other.label_values) != (&first.labels, &first.label_values) {
                output.text(classes(other))?;
            }
            output.text(to_text(model, other))?;
            let difference = first.confusion.accuracy() - other.confusion.accuracy();
            output.text(format!(
                "\ndifference {} points; right alone: {} against {}; {} (McNemar, exact)\n",
                points(difference),
                grouped(pair.only_second),
                grouped(pair.only_first),
                p_value(pair.p_value())
            ))?;
        }
    }
    output.flush()?;
    match &other {
        Some(other) => gate(other.confusion.accuracy(), first.confusion.accuracy(), typed.max_drop),
        None => Ok(()),
    }
}

fn answers_of(path: &Path, typed: &Eval) -> Result<Answers, Failure> {
    let recipe = typed.data.recipe()?;
    let threads = cli::threads(typed.common.threads.unwrap_or(0));
    let mut model = match typed.common.device {
        Device::Cpu => engine::open(path, threads)?,
        Device::Cuda => engine::open_on_gpu(path)?,
    };
    let texts = engine::texts(&recipe, &*model)?;
    let mut confusion = Confusion::new(model.classes());
    let mut right = Vec::with_capacity(texts.len());
    let progress = progress::choose(typed.common.quiet);
    progress.begin(&format!("evaluate {}", path.display()), texts.len() as u64);
    answers(&mut *model, &texts, &*progress, |_, label, predicted| {
        confusion.record(label, predicted);
        right.push(label == predicted);
    })?;
    progress.end();
    let (labels, label_values) = (model.labels().to_vec(), texts.label_values().to_vec());
    Ok(Answers { confusion, labels, label_values, right })
}

fn to_json(answers: &Answers) -> Value {
    let confusion = &answers.confusion;
    let (interval, classes) = (confusion.interval(), 0..confusion.classes());
    let row = |label| classes.clone().map(|predicted| confusion.count(label, predicted)).collect::<Vec<_>>();
    json!({
        "texts": confusion.total(),
        "accuracy": confusion.accuracy(),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": confusion.macro_f1(),
        "labels": answers.labels,
        "label_values": answers.label_values,
        "confusion": classes.clone().map(row).collect::<Vec<_>>(),
    })
}

/// Most classes that are named, and that a confusion matrix is printed for; JSON holds any.
const PRINTED_CLASSES: usize = 8;

/// A line that says which class is which, and what the data call it if that is not its name.
fn classes(answers: &Answers) -> String {
    let named = answers.labels.iter().zip(&answers.label_values).enumerate();
    let mut classes: Vec<String> = named
        .map(|(class, (name, value))| match name == value {
            true => format!("{class} {name}"),
            false => format!("{class} {name} (in the data: {value})"),
        })
        .collect();
    let more = classes.len().saturating_sub(PRINTED_CLASSES);
    if more > 0 {
        classes.truncate(PRINTED_CLASSES);
        classes.push(format!("{more} more"));
    }
    format!("classes: {}\n", classes.join(", "))
}

fn to_text(path: &Path, answers: &Answers) -> String {
    let confusion = &answers.confusion;
    let interval = confusion.interval();
    let mut text = format!(
        "{}\naccuracy {} % (95 %: {} to {}), macro-F1 {} %, {} texts\n",
        path.display(),
        percent(confusion.accuracy()),
        percent(interval.low),
        percent(interval.high),
        percent(confusion.macro_f1()),
        grouped(confusion.total())
    );
    let classes = confusion.classes();
    if classes > PRINTED_CLASSES {
        return text;
    }
    // Rows of at most PRINTED_CLASSES + 1 cells; columns that do not exist stay empty and are trimmed.
    let name = |class: usize| answers.labels.get(class).cloned().unwrap_or_default();
    let heading = std::array::from_fn(|column| match column {
        0 => "label \\ predicted".into(),
        column => name(column - 1),
    });
    let mut lines: Vec<[String; PRINTED_CLASSES + 1]> = vec![heading];
    for label in 0..classes {
        lines.push(std::array::from_fn(|column| match column {
            0 => name(label),
            column if column <= classes => grouped(confusion.count(label, column - 1)),
            _ => String::new(),
        }));
    }
    for line in aligned(&lines).lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_printed_and_is_in_the_json() {
        let mut confusion = Confusion::new(2);
        [(0, 0), (0, 1), (1, 1)]
            .into_iter()
            .for_each(|(label, predicted)| confusion.record(label, predicted));
        let answers = Answers {
            confusion,
            labels: vec!["good".into(), "bad".into()],
            label_values: vec!["good".into(), "2".into()],
            right: vec![true, false, true],
        };
        assert_eq!(classes(&answers), "classes: 0 good, 1 bad (in the data: 2)\n");
        let json = to_json(&answers);
        assert_eq!(json["confusion"], json!([[1, 1], [0, 1]]));
        assert_eq!((&json["labels"][1], &json["label_values"][1]), (&json!("bad"), &json!("2")));
        let text = to_text("m".as_ref(), &answers);
        assert!(text.starts_with("m\naccuracy 66.67 % (95 %: "), "{text}");
        assert_eq!(text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>(), ["bad", "0", "1"]);
    }
}
