//! Line charts as SVG, over a number of connections; both axes are logarithmic, so that a line of one shape
//! at another height means the same behaviour at another cost.

use std::fmt::Write as _;

/// Size of a chart in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;

/// Room around the lines, in pixels: for the axes' texts, the title and the names.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Told apart also by those who see few colours.
const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#8a7000",
];

/// One line: its name, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis from one power of its base to another.
struct Axis {
    least: f64,
    most: f64,
    base: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, base: f64) -> Self {
        let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
        for value in values.filter(|value| *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            (least, most) = (1.0, base);
        }
        let least = least.log(base).floor();
        Self {
            least,
            most: most.log(base).ceil().max(least + 1.0),
            base,
        }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.log(self.base) - self.least) / (self.most - self.least)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let mut power = self.least;
        std::iter::from_fn(move || {
            (power <= self.most).then(|| {
                power += 1.0;
                self.base.powf(power - 1.0)
            })
        })
    }
}

/// A whole SVG file.
pub(crate) fn chart(title: &str, unit: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = Axis::over(points().map(|(x, _)| *x), 4.0);
    let up = Axis::over(points().map(|(_, y)| *y), 10.0);
    let x = |value| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let y = |value| HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
"#
    );
    text(&mut svg, LEFT, 22.0, "start", &format!("{title}, {unit}"));
    for tick in across.ticks() {
        stroke(&mut svg, (x(tick), TOP), (x(tick), HEIGHT - BOTTOM));
        text(
            &mut svg,
            x(tick),
            HEIGHT - BOTTOM + 18.0,
            "middle",
            &short(tick),
        );
    }
    for tick in up.ticks() {
        stroke(&mut svg, (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)));
        text(&mut svg, LEFT - 8.0, y(tick) + 4.0, "end", &short(tick));
    }
    text(
        &mut svg,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0,
        "middle",
        "connections",
    );
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let places: Vec<_> = line
            .points
            .iter()
            .map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py)))
            .collect();
        let _ = writeln!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
            places.join(" ")
        );
        for (px, py) in &line.points {
            let _ = writeln!(
                svg,
                r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                x(*px),
                y(*py)
            );
        }
        let height = TOP + 16.0 + 20.0 * number as f64;
        let _ = writeln!(
            svg,
            r#"<rect x="{}" y="{}" width="14" height="4" fill="{colour}"/>"#,
            WIDTH - RIGHT + 14.0,
            height - 6.0
        );
        text(&mut svg, WIDTH - RIGHT + 34.0, height, "start", &line.name);
    }
    svg + "</svg>\n"
}

fn stroke(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#dddddd"/>"##,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

/// 1024 is `1,024`, 100000 is `100k`.
fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else if value >= 1e3 {
        format!("{},{:03}", (value / 1e3).floor(), value % 1e3)
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_every_point_and_every_name() {
        let line = |name: &str, factor: f64| Line {
            name: name.to_owned(),
            points: [1.0, 8.0, 64.0].map(|x| (x, x * factor)).into(),
        };
        let svg = chart("Calls", "1/s", &[line("a < b", 1e3), line("c", 2e3)]);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains(">100k<"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1.0, 1024.0, 1e5, 1e6].map(short),
            ["1", "1,024", "100k", "1M"]
        );
    }
}
