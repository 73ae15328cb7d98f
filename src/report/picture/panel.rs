//! One panel: its axes and grid, the staircase of the front, the points and their names.

use super::axis::Axis;
use super::{Kind, LEFT, Mark, PANEL, Panel, Scale, WIDTH, class, escaped, names, symbol};
use std::fmt::Write as _;

/// From the area of points to the panel's other sides.
const TOP: f64 = 14.0;
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 58.0;

/// The area of points and its two axes.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Of costs.
    across: Axis,
    /// Of accuracies.
    up: Axis,
}

impl Frame {
    fn around(panel: &Panel) -> Frame {
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, PANEL - BOTTOM);
        let costs = panel.marks.iter().map(|mark| mark.cost);
        let accuracies = panel.marks.iter().flat_map(|mark| mark.accuracy);
        let across = Axis::new(panel.scale, costs, left, right);
        Frame { left, right, top, bottom, across, up: Axis::new(Scale::Linear, accuracies, bottom, top) }
    }

    /// Where a point is.
    fn at(&self, mark: &Mark) -> [f64; 2] {
        [self.across.at(mark.cost), self.up.at(mark.accuracy[0])]
    }
}

/// Draws a panel, whose upper left corner is the origin.
pub(super) fn draw(text: &mut String, panel: &Panel) {
    let frame = Frame::around(panel);
    grid(text, &frame);
    titles(text, panel, &frame);
    stairs(text, panel, &frame);
    // The front last, over the others.
    let order = |mark: &Mark| match mark.kind {
        Kind::Dominated => 0,
        Kind::Reference => 1,
        Kind::Front => 2,
    };
    let mut points: Vec<(&Mark, [f64; 2])> = panel.marks.iter().map(|mark| (mark, frame.at(mark))).collect();
    points.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)).then(a.cost.total_cmp(&b.cost)));
    points.iter().for_each(|(mark, place)| point(text, mark, *place, &frame));
    points.iter().for_each(|(mark, place)| tip(text, mark, *place));
    names::write(text, &points, [frame.left, frame.right, frame.top, frame.bottom]);
}

/// Lines across the area at round values, and the values.
fn grid(text: &mut String, frame: &Frame) {
    let Frame { left, right, top, bottom, across, up } = frame;
    for (value, label) in across.ticks() {
        let (x, y) = (across.at(value), bottom + 16.0);
        let _ = writeln!(text, "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>");
        let _ = writeln!(
            text,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{label}</text>"
        );
    }
    for (value, label) in up.ticks() {
        let (x, y) = (left - 7.0, up.at(value));
        let _ = writeln!(text, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
        let _ = writeln!(
            text,
            "<text class=\"tick\" text-anchor=\"end\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            y + 4.0
        );
    }
    let (width, height) = (right - left, bottom - top);
    let _ = writeln!(
        text,
        "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>"
    );
}

/// What the axes are of.
fn titles(text: &mut String, panel: &Panel, frame: &Frame) {
    let Frame { left, right, top, bottom, .. } = frame;
    let _ = writeln!(
        text,
        "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        (left + right) / 2.0,
        bottom + 36.0,
        escaped(&panel.cost)
    );
    let _ = writeln!(
        text,
        "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(18 {:.1}) rotate(-90)\">accuracy, %</text>",
        (top + bottom) / 2.0
    );
}

/// What can be had at each cost: from each point of the front level to the cost of the next one.
fn stairs(text: &mut String, panel: &Panel, frame: &Frame) {
    let mut front: Vec<&Mark> = panel.marks.iter().filter(|mark| mark.kind == Kind::Front).collect();
    front.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut places = front.into_iter().map(|mark| frame.at(mark));
    let Some([x, y]) = places.next() else { return };
    let mut path = format!("M{x:.1} {y:.1}");
    for [x, y] in places {
        let _ = write!(path, "H{x:.1}V{y:.1}");
    }
    let _ = writeln!(text, "<path class=\"stairs\" d=\"{path}H{}\"/>", frame.right);
}

/// A point and the interval of its accuracy.
fn point(text: &mut String, mark: &Mark, [x, y]: [f64; 2], frame: &Frame) {
    let [_, low, high] = mark.accuracy.map(|accuracy| frame.up.at(accuracy));
    let class = class(mark.kind);
    let _ = writeln!(
        text,
        "<path class=\"{class}\" fill-opacity=\"0\" opacity=\".55\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>"
    );
    symbol(text, mark.kind, x, y);
}

/// What is shown where a pointer rests on a point.
fn tip(text: &mut String, mark: &Mark, [x, y]: [f64; 2]) {
    let (name, [accuracy, ..], cost) = (escaped(&mark.name), mark.accuracy, mark.cost);
    let _ = writeln!(
        text,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\" fill-opacity=\"0\"><title>{name}: {accuracy:.2} %, {cost:.3}</title></circle>"
    );
}
