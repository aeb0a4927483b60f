//! What was found, for people: by area, the worst first, each with what it means and what to do; the good
//! in a line, and much good of one kind in one.

use std::{cmp::Reverse, fmt::Write as _};

use super::{
    super::output::{self, Paint},
    finding::{Area, Finding, Level, Report},
};

/// Good findings of one kind that are shown each on its own line.
const SHOWN_EACH: usize = 3;

pub(super) fn report(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    for area in Area::ALL {
        let mut of_area: Vec<_> = report.findings.iter().collect();
        of_area.retain(|finding| finding.area == area);
        if of_area.is_empty() {
            continue;
        }
        of_area.sort_by_key(|finding| Reverse(finding.level));
        let _ = writeln!(text, "{}", area.name());
        for (at, finding) in of_area.iter().enumerate() {
            let is_same =
                |other: &&&Finding| other.level == Level::Good && other.check == finding.check;
            let alike = of_area.iter().filter(is_same).count();
            if finding.level == Level::Good && alike > SHOWN_EACH {
                if !of_area[..at].iter().any(|other| is_same(&other)) {
                    let check = paint.dim(&format!("[{}]", finding.check));
                    let level = paint.good("good   ");
                    let _ = writeln!(text, "  {level}  {alike} times as it should be {check}");
                }
                continue;
            }
            let level = match finding.level {
                Level::Good => paint.good("good   "),
                Level::Warning => paint.doubtful("warning"),
                Level::Problem => paint.bad("problem"),
            };
            let check = paint.dim(&format!("[{}]", finding.check));
            let found = output::shown(finding.found.replace('\n', " ").as_bytes());
            let _ = writeln!(text, "  {level}  {found} {check}");
            for (name, said) in [("means", &finding.means), ("next ", &finding.next)] {
                if !said.is_empty() {
                    let _ = writeln!(text, "           {name}: {said}");
                }
            }
        }
        text.push('\n');
    }
    let (problems, warnings) = (report.count(Level::Problem), report.count(Level::Warning));
    let summary = format!(
        "{}, {}",
        counted(problems, "problem"),
        counted(warnings, "warning")
    );
    let summary = match (problems, warnings) {
        (0, 0) => paint.good("nothing is wrong"),
        (0, _) => paint.doubtful(&summary),
        _ => paint.bad(&summary),
    };
    let _ = writeln!(text, "{summary}");
    text
}

fn counted(number: usize, one: &str) -> String {
    match number {
        0 => format!("no {one}s"),
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}
