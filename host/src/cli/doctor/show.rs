//! What was found, for people: by area, the good in a line, the rest with what it means and what to do.

use std::fmt::Write as _;

use super::{
    super::output::{self, Paint},
    finding::{Area, Level, Report},
};

pub(super) fn report(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    for area in Area::ALL {
        let of_area = || report.findings.iter().filter(|one| one.area == area);
        if of_area().next().is_none() {
            continue;
        }
        let _ = writeln!(text, "{}", area.name());
        for finding in of_area() {
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
