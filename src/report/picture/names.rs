//! Names beside points, each where it covers least of what is there.

use super::{Kind, LETTER, LINE, Mark, escaped};
use std::fmt::Write as _;

/// A rectangle that is written on.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn around(x: f64, y: f64) -> Area {
        Area { left: x - 5.0, right: x + 5.0, top: y - 5.0, bottom: y + 5.0 }
    }

    fn overlap(&self, other: &Area) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }
}

/// Writes the names of these points, the last first; those that another one dominates stay without.
///
/// `frame` is where the points are: left, right, top and bottom.
pub(super) fn write(text: &mut String, points: &[(&Mark, [f64; 2])], frame: [f64; 4]) {
    let mut taken: Vec<Area> = points.iter().map(|(_, [x, y])| Area::around(*x, *y)).collect();
    for (mark, place) in points.iter().rev().filter(|(mark, _)| mark.kind != Kind::Dominated) {
        name(text, mark, *place, &mut taken, frame);
    }
}

/// Writes a point's name beside it.
fn name(text: &mut String, mark: &Mark, [x, y]: [f64; 2], taken: &mut Vec<Area>, frame: [f64; 4]) {
    let [left, right, top, bottom] = frame;
    let width = LETTER * mark.name.chars().count() as f64;
    let spots = [-9.0, 15.0, 3.0, -22.0, 28.0, -35.0, 41.0].into_iter().flat_map(|down| {
        [9.0, -9.0 - width, -width / 2.0].map(|along| {
            let begin = (x + along).clamp(left + 3.0, (right - width - 3.0).max(left + 3.0));
            Area { left: begin, right: begin + width, top: y + down - LINE + 3.0, bottom: y + down + 3.0 }
        })
    });
    let cost = |area: &Area| -> f64 {
        let outside = (top - area.top).max(0.0) + (area.bottom - bottom).max(0.0);
        1e3 * outside + taken.iter().map(|other| area.overlap(other)).sum::<f64>()
    };
    let best = spots.min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("there are spots");
    let class = if mark.kind == Kind::Reference { "other" } else { "name" };
    let _ = writeln!(
        text,
        "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        best.left,
        best.bottom - 3.0,
        escaped(&mark.name)
    );
    taken.push(best);
}
