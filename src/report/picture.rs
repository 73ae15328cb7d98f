//! Accuracy against what it costs, as one SVG that needs nothing else: no script, no font, no network.
//!
//! Panels stand below each other, one for each cost. In each, points that no other one beats in both accuracy and
//! cost are the front: coloured, joined by the staircase of what can be had, and named. The others are grey.
//! References, which were not searched for (the baseline, the controls), are open diamonds.

mod axis;
mod names;
mod panel;

pub use axis::Scale;
use std::fmt::Write as _;

/// How a point came to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No other point is at least as good and at most as costly.
    Front,
    /// Another one is.
    Dominated,
    /// It is there for comparison.
    Reference,
}

/// A point of a panel.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its name; written beside it unless it is dominated, and shown for all where a pointer rests on it.
    pub name: String,
    /// What it costs, in the unit of the panel; above 0 on a logarithmic axis.
    pub cost: f64,
    /// Its accuracy, in per cent, and the interval of that.
    pub accuracy: [f64; 3],
    /// What it is.
    pub kind: Kind,
}

/// One picture of accuracy against a cost.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What stands below the axis of costs, with the unit.
    pub cost: String,
    /// How costs are spread.
    pub scale: Scale,
    /// The points.
    pub marks: Vec<Mark>,
}

const WIDTH: f64 = 880.0;
const HEAD: f64 = 78.0;
/// The height of one.
const PANEL: f64 = 430.0;
/// From a panel's left side to the area of points.
const LEFT: f64 = 66.0;

/// Of the labels: 11 pixels of a sans serif font.
const LETTER: f64 = 6.3;
const LINE: f64 = 13.0;

const STYLE: &str = "\
text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#222}\
.title{font-size:17px;font-weight:600}.sub,.tick{fill:#555}.axis{font-size:12px}\
.grid{stroke:#e6e6e6}.frame{stroke:#777;fill:none}.stairs{stroke:#0b6e99;stroke-width:1.5;fill:none;stroke-dasharray:4 3}\
.front{fill:#0b6e99;stroke:#0b6e99}.dominated{fill:#bdbdbd;stroke:#bdbdbd}.reference{fill:#fff;stroke:#b4531a;stroke-width:1.6}\
.name{font-weight:600;fill:#0b4f6e}.other{fill:#b4531a}";

/// The panels as one SVG; `title` and `origin`, where the figures come from, stand above them.
pub fn svg(title: &str, origin: &str, panels: &[Panel]) -> String {
    let height = HEAD + PANEL * panels.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">{}</text>\n<text class=\"sub\" x=\"{LEFT}\" y=\"44\">{}</text>\n",
        escaped(title),
        escaped(title),
        escaped(origin)
    );
    legend(&mut text);
    for (number, panel) in panels.iter().enumerate() {
        let _ = writeln!(text, "<g transform=\"translate(0 {})\">", HEAD + PANEL * number as f64);
        panel::draw(&mut text, panel);
        text += "</g>\n";
    }
    text + "</svg>\n"
}

fn legend(text: &mut String) {
    let mut x = LEFT + 5.0;
    for (kind, said) in [
        (Kind::Front, "front: none is better and cheaper"),
        (Kind::Dominated, "dominated"),
        (Kind::Reference, "not searched: baseline and controls"),
    ] {
        symbol(text, kind, x, 62.0);
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"66\">{said}</text>", x + 10.0);
        x += 34.0 + LETTER * said.len() as f64;
    }
    let _ = writeln!(text, "<path d=\"M{x:.1} 56v12m-3-12h6m-6 12h6\" stroke=\"#555\" fill=\"none\"/>");
    let _ = writeln!(text, "<text x=\"{:.1}\" y=\"66\">95 % interval of the accuracy</text>", x + 10.0);
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Front => "front",
        Kind::Dominated => "dominated",
        Kind::Reference => "reference",
    }
}

fn symbol(text: &mut String, kind: Kind, x: f64, y: f64) {
    let class = class(kind);
    let _ = match kind {
        Kind::Reference => {
            writeln!(text, "<path class=\"{class}\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5-5z\"/>", y - 5.0)
        }
        _ => writeln!(text, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
    };
}

/// A text as it may stand in SVG and HTML.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '"' => safe += "&quot;",
            // Neither may hold others.
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str, cost: f64, accuracy: f64, kind: Kind) -> Mark {
        Mark { name: name.into(), cost, accuracy: [accuracy, accuracy - 0.5, accuracy + 0.4], kind }
    }

    fn panel() -> Panel {
        let marks = vec![
            mark("small & <b>", 2.5, 90.0, Kind::Front),
            mark("large", 20.0, 93.0, Kind::Front),
            mark("between", 10.0, 89.0, Kind::Dominated),
            mark("n-grams", 4.0, 91.5, Kind::Reference),
        ];
        Panel { cost: "size, MiB (logarithmic)".into(), scale: Scale::Logarithmic, marks }
    }

    /// Every element is closed, in the order in which it was opened; what is between is text.
    fn is_well_formed(text: &str) -> bool {
        let mut open: Vec<String> = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let Some(end) = rest[at..].find('>') else { return false };
            let tag = &rest[at + 1..at + end];
            rest = &rest[at + end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop().as_deref() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap_or_default().to_owned());
            }
        }
        open.is_empty()
    }

    #[test]
    fn it_is_whole_and_needs_nothing() {
        let drawn = svg("sweep <x>", "machine", &[panel(), Panel { scale: Scale::Linear, ..panel() }]);
        assert!(is_well_formed(&drawn), "{drawn}");
        assert!(!drawn.contains("<script") && drawn.matches("http").count() == 1, "only its own name space");
        for text in
            ["small &amp; &lt;b&gt;", "size, MiB (logarithmic)", "accuracy, %", "sweep &lt;x&gt;", "machine"]
        {
            assert!(drawn.contains(&format!(">{text}</text>")), "{text} in {drawn}");
        }
        assert!(!drawn.contains(">between</text>"), "a dominated point has no label");
        assert_eq!(drawn.matches("<title>between").count(), 2);
        // One of each in the legend.
        assert_eq!(drawn.matches("circle class=\"front\"").count(), 1 + 2 * 2);
        assert_eq!(drawn.matches("circle class=\"dominated\"").count(), 1 + 2);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
    }

    #[test]
    fn no_point_and_one_point_are_pictures_too() {
        for marks in [Vec::new(), vec![mark("alone", 3.0, 50.0, Kind::Front)]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let drawn = svg("t", "o", &[Panel { cost: "ms".into(), scale, marks: marks.clone() }]);
                assert!(
                    is_well_formed(&drawn) && !drawn.contains("NaN") && !drawn.contains("inf"),
                    "{drawn}"
                );
            }
        }
    }

    #[test]
    fn names_keep_out_of_each_others_way() {
        let marks =
            (0..4).map(|i| mark(&format!("point-number-{i}"), 5.0, 90.0 + 0.01 * f64::from(i), Kind::Front));
        let drawn = svg("t", "o", &[Panel { marks: marks.collect(), ..panel() }]);
        let places: Vec<[f64; 2]> = drawn
            .lines()
            .filter(|line| line.contains("class=\"name\""))
            .map(|line| {
                ["x=\"", "y=\""]
                    .map(|key| line.split(key).nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            })
            .collect();
        assert_eq!(places.len(), 4);
        let width = LETTER * "point-number-0".len() as f64;
        for (i, [x, y]) in places.iter().enumerate() {
            let clear = |[a, b]: &[f64; 2]| (a - x).abs() >= width - 0.2 || (b - y).abs() >= LINE - 0.2;
            assert!(places[..i].iter().all(clear), "{places:?}");
        }
    }
}
