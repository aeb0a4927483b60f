//! Processes that really die, each a run of one of these tests again in a child, and what is said
//! about their death.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]
#![allow(unsafe_code, reason = "safe code does not fault")]

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    ptr, thread,
    time::Duration,
};

use super::*;
use crate::shared_memory::threads::{Activity, ThreadSlots, enter, follow_in};

/// Set for a child: the file to which it tells its mappings.
const CHILD: &str = "PLUGIN_HOST_TEST_DIES";

/// The generation whose library this very program is taken for.
const CULPRIT: u64 = 7;

/// One whose code is mapped nowhere.
const INNOCENT: u64 = 8;

/// A process that died.
struct Dead {
    pid: u32,
    status: ExitStatus,
    slots: ThreadSlots,
    mappings: Vec<Mapping>,
    generations: Vec<KnownGeneration>,
}

impl Dead {
    fn report(&self) -> Report {
        self.report_after(None)
    }

    fn report_after(&self, killed_for: Option<KilledFor>) -> Report {
        let call = OpenCall {
            request_id: 4_711,
            phase: "request".to_owned(),
            generation: CULPRIT,
            state: "in call".to_owned(),
            plugin: None,
        };
        self.autopsy(killed_for, vec![call]).report()
    }

    fn autopsy(&self, killed_for: Option<KilledFor>, open_calls: Vec<OpenCall>) -> Autopsy<'_> {
        Autopsy {
            pid: self.pid,
            status: self.status,
            threads: &self.slots,
            generations: &self.generations,
            mappings: &self.mappings,
            open_calls,
            uptime: Duration::from_secs(3),
            host_version: "0.1.0".to_owned(),
            killed_for,
        }
    }
}

fn known() -> Vec<KnownGeneration> {
    let program = env::current_exe().unwrap();
    vec![
        KnownGeneration::new(CULPRIT, "bad", "1.2.3", "aa", &program),
        KnownGeneration::new(INNOCENT, "good", "4.5.6", "bb", Path::new("/nowhere")),
    ]
}

/// Runs the test of this name again in a child, which installs the handlers and does the deed.
fn death_by(test: &str, deed: fn()) -> Dead {
    if let Some(mappings_file) = env::var_os(CHILD) {
        let slots = ThreadSlots::open(io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
        follow_in(slots.clone());
        install(&slots).unwrap();
        let mappings = serde_json::to_vec(&mappings().unwrap()).unwrap();
        fs::write(mappings_file, mappings).unwrap();
        deed();
        panic!("it has outlived its deed");
    }
    let directory = tempfile::tempdir().unwrap();
    let mappings_file = directory.path().join("mappings");
    let slots = ThreadSlots::create().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([&format!("crash::tests::{test}"), "--exact", "--nocapture"])
        .env(CHILD, &mappings_file)
        .stdin(File::from(slots.file().try_clone_to_owned().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    Dead {
        pid: child.id(),
        status,
        slots,
        mappings: serde_json::from_slice(&fs::read(&mappings_file).unwrap()).unwrap(),
        generations: known(),
    }
}

#[inline(never)]
fn write_where_nothing_is() {
    // SAFETY: there is nothing that this could damage; it faults, which is what it is for.
    unsafe { ptr::without_provenance_mut::<u64>(0x10).write_volatile(1) }
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "it is to fault")]
fn overflow(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    overflow(depth + 1) + here[0]
}

fn blamed(report: &Report) -> Option<(u64, Rule)> {
    let blamed = report.blamed.as_ref()?;
    Some((blamed.generation.number, blamed.rule))
}

#[test]
fn a_fault_inside_a_plugin_is_the_plugins_and_told_with_all_that_is_known() {
    let dead = death_by(
        "a_fault_inside_a_plugin_is_the_plugins_and_told_with_all_that_is_known",
        || {
            let _stay = enter(CULPRIT, Activity::Configure);
            write_where_nothing_is();
        },
    );
    assert_eq!(dead.status.signal(), Some(libc::SIGSEGV));
    let mut report = dead.report();
    assert_eq!(
        report.cause,
        Cause::Fault {
            signal: libc::SIGSEGV,
            name: "SIGSEGV".to_owned(),
            code: 1,
            address: Some(Address(0x10)),
            stack_overflow: false,
        }
    );
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
    assert!(report.in_plugins_library);
    let inside = report.thread.clone().unwrap().inside.unwrap();
    assert_eq!(inside.activity, "parsing a configuration");
    assert_eq!(report.inside_plugins, [inside]);
    let call = &report.open_calls[0];
    let plugin = call.plugin.as_ref().unwrap().known.as_ref().unwrap();
    assert_eq!((call.request_id, plugin.name.as_str()), (4_711, "bad"));
    assert!(report.backtrace.len() > 5, "{:#?}", report.backtrace);

    report.symbolise();
    let innermost = report.backtrace[0].function.as_deref().unwrap();
    assert!(innermost.ends_with("write_where_nothing_is"), "{innermost}");
    let written = serde_json::to_string(&report).unwrap();
    assert!(written.contains(r#""address":"0x10""#), "{written}");
    assert_eq!(serde_json::from_str::<Report>(&written).unwrap(), report);
    let line = report.to_string();
    for expected in [
        &format!("worker {} died of SIGSEGV at address 0x10", dead.pid),
        "in plugin bad 1.2.3 while parsing a configuration",
        "open calls: 4711 (request)",
        "write_where_nothing_is+0x",
    ] {
        assert!(line.contains(expected), "{expected} is not in {line}");
    }
}

#[test]
fn an_abort_is_no_signal_from_outside() {
    let dead = death_by("an_abort_is_no_signal_from_outside", || {
        let _stay = enter(CULPRIT, Activity::Filter);
        std::process::abort();
    });
    assert_eq!(dead.status.signal(), Some(libc::SIGABRT));
    let report = dead.report();
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
    let line = report.to_string();
    assert!(line.contains("died of SIGABRT in plugin bad"), "{line}");
}

#[test]
fn of_many_open_calls_those_of_the_culprit_are_listed_first() {
    let dead = death_by(
        "of_many_open_calls_those_of_the_culprit_are_listed_first",
        || {
            let _stay = enter(CULPRIT, Activity::Filter);
            std::process::abort();
        },
    );
    let calls = (0..1_000).map(|request_id| OpenCall {
        request_id,
        phase: "response".to_owned(),
        generation: if request_id >= 998 { CULPRIT } else { 0 },
        state: "in call".to_owned(),
        plugin: None,
    });
    let report = dead.autopsy(None, calls.collect()).report();
    assert_eq!((report.open_calls.len(), report.calls_left_out), (256, 744));
    let first: Vec<_> = report.open_calls[..3]
        .iter()
        .map(|it| it.request_id)
        .collect();
    assert_eq!(first, [998, 999, 0]);
    let line = report.to_string();
    assert!(line.contains("998 (response), 999 (response), 0"), "{line}");
    assert!(line.contains("and 990 more"), "{line}");
}

#[test]
fn a_stack_overflow_is_recorded_on_the_second_stack() {
    let dead = death_by("a_stack_overflow_is_recorded_on_the_second_stack", || {
        let _stay = enter(CULPRIT, Activity::Filter);
        black_box(overflow(1));
    });
    assert_eq!(dead.status.signal(), Some(libc::SIGSEGV));
    let report = dead.report();
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
    assert!(
        matches!(
            report.cause,
            Cause::Fault {
                stack_overflow: true,
                ..
            }
        ),
        "{:?}",
        report.cause
    );
    assert_eq!(report.backtrace.len(), record::MAX_FRAMES + 1);
}

#[test]
fn whoever_calls_exit_is_known_although_it_is_no_fault() {
    let dead = death_by(
        "whoever_calls_exit_is_known_although_it_is_no_fault",
        || {
            let _stay = enter(CULPRIT, Activity::Load);
            std::process::exit(0);
        },
    );
    assert_eq!(dead.status.code(), Some(0));
    let report = dead.report();
    assert_eq!(report.cause, Cause::Exit { code: 0 });
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
    assert_eq!(report.thread.unwrap().inside.unwrap().activity, "loading");
}

#[test]
fn a_process_that_ends_without_a_word_is_the_only_plugins_that_was_running() {
    let dead = death_by(
        "a_process_that_ends_without_a_word_is_the_only_plugins_that_was_running",
        || {
            let _stay = enter(CULPRIT, Activity::Filter);
            // SAFETY: it ends the process.
            unsafe { libc::_exit(3) }
        },
    );
    let report = dead.report();
    assert_eq!(report.cause, Cause::Exit { code: 3 });
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::OnlyOneInside)));
}

#[test]
fn a_fault_on_a_plugins_own_thread_is_known_by_its_code() {
    let dead = death_by(
        "a_fault_on_a_plugins_own_thread_is_known_by_its_code",
        || {
            let _stay = enter(INNOCENT, Activity::Filter);
            thread::spawn(write_where_nothing_is).join().unwrap();
        },
    );
    let report = dead.report();
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::FrameInLibrary)));
    assert!(report.in_plugins_library);
    assert_eq!(report.thread.unwrap().inside, None);
    assert_eq!(report.inside_plugins[0].generation.number, INNOCENT);
}

#[test]
fn where_two_plugins_could_be_meant_nobody_is_blamed_and_both_are_named() {
    let dead = death_by(
        "where_two_plugins_could_be_meant_nobody_is_blamed_and_both_are_named",
        || {
            let _stay = enter(INNOCENT, Activity::Filter);
            write_where_nothing_is();
        },
    );
    let report = dead.report();
    assert_eq!(report.blamed, None);
    let suspects: Vec<_> = report.suspects.iter().map(|it| it.number).collect();
    assert_eq!(suspects, [INNOCENT, CULPRIT]);
    let line = report.to_string();
    let expected = "it is not certain whose doing it was: plugin good 4.5.6, plugin bad 1.2.3";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn who_is_killed_from_outside_had_no_culprit_inside() {
    let dead = death_by("who_is_killed_from_outside_had_no_culprit_inside", || {
        let _stay = enter(CULPRIT, Activity::Filter);
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    let report = dead.report();
    assert!(matches!(report.cause, Cause::Killed { signal: 9, .. }));
    assert_eq!(report.blamed, None);
    assert_eq!(report.suspects, []);
    assert_eq!(report.inside_plugins[0].generation.number, CULPRIT);

    let stuck = dead.report_after(Some(KilledFor::StuckLoop { plugin: CULPRIT }));
    assert_eq!(stuck.cause, Cause::StuckLoop);
    assert_eq!(blamed(&stuck), Some((CULPRIT, Rule::StuckLoop)));
}

#[test]
fn a_signal_of_a_fault_that_another_process_sends_is_nobodys_fault() {
    let dead = death_by(
        "a_signal_of_a_fault_that_another_process_sends_is_nobodys_fault",
        || {
            let _stay = enter(CULPRIT, Activity::Filter);
            let kill = format!("kill -BUS {}", std::process::id());
            Command::new("sh").args(["-c", &kill]).status().unwrap();
            thread::sleep(Duration::from_secs(60));
        },
    );
    assert_eq!(dead.status.signal(), Some(libc::SIGBUS));
    let report = dead.report();
    assert!(
        matches!(report.cause, Cause::Killed { signal: libc::SIGBUS, sender: Some(sender), .. } if sender != dead.pid),
        "{:?}",
        report.cause
    );
    assert_eq!(report.blamed, None);
}

#[test]
fn a_plugin_that_takes_the_handlers_away_answers_for_it() {
    let dead = death_by(
        "a_plugin_that_takes_the_handlers_away_answers_for_it",
        || {
            let _stay = enter(CULPRIT, Activity::Filter);
            // SAFETY: the action by default needs nothing.
            unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
            write_where_nothing_is();
        },
    );
    assert_eq!(dead.status.signal(), Some(libc::SIGSEGV));
    let report = dead.report();
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::OnlyOneInside)));
    assert_eq!((report.thread, report.backtrace.len()), (None, 0));
}

#[test]
fn of_several_threads_that_fault_at_the_same_time_the_first_is_recorded() {
    let dead = death_by(
        "of_several_threads_that_fault_at_the_same_time_the_first_is_recorded",
        || {
            let ready = &std::sync::Barrier::new(8);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let _stay = enter(CULPRIT, Activity::Filter);
                        ready.wait();
                        write_where_nothing_is();
                    });
                }
            });
        },
    );
    assert_eq!(dead.status.signal(), Some(libc::SIGSEGV));
    let report = dead.report();
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
    assert_eq!(report.inside_plugins.len(), 8);
    assert!(report.backtrace.len() > 3);
}

#[test]
fn a_lock_that_is_held_does_not_keep_a_fault_from_ending_the_process() {
    unsafe extern "C" fn keep(
        _: *mut libc::dl_phdr_info,
        _: libc::size_t,
        held: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: it is the barrier that is handed over below, and lives as long.
        unsafe { &*held.cast::<std::sync::Barrier>() }.wait();
        thread::sleep(Duration::from_secs(60));
        1
    }
    let dead = death_by(
        "a_lock_that_is_held_does_not_keep_a_fault_from_ending_the_process",
        || {
            let held = &std::sync::Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let held = ptr::from_ref(held).cast_mut().cast();
                    // SAFETY: the function fits, and the barrier outlives the call.
                    unsafe { libc::dl_iterate_phdr(Some(keep), held) };
                });
                held.wait();
                let _stay = enter(CULPRIT, Activity::Filter);
                write_where_nothing_is();
            });
        },
    );
    assert!(matches!(
        dead.status.signal(),
        Some(libc::SIGSEGV | libc::SIGALRM)
    ));
    let report = dead.report();
    assert!(report.to_string().contains("died of SIGSEGV"), "{report}");
    assert_eq!(blamed(&report), Some((CULPRIT, Rule::ThreadInside)));
}

#[test]
fn the_death_of_a_child_that_a_plugin_forks_is_not_the_workers() {
    let dead = death_by(
        "the_death_of_a_child_that_a_plugin_forks_is_not_the_workers",
        || {
            let _stay = enter(CULPRIT, Activity::Filter);
            // SAFETY: the child does nothing but fault.
            let child = unsafe { libc::fork() };
            if child == 0 {
                write_where_nothing_is();
            }
            // SAFETY: it waits for the child, with no place for its status.
            unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
            std::process::exit(5);
        },
    );
    let report = dead.report();
    assert_eq!(report.cause, Cause::Exit { code: 5 });
    let fault = record::of_faults(dead.slots.crash_words()).read();
    assert_eq!(fault, None);
}
