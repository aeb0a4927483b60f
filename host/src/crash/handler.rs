//! Writes down how this process dies, when it does: handlers for the signals of faults, and a hook
//! for `exit`.
//!
//! A handler runs in the middle of anything: it takes no lock, allocates nothing and waits for
//! nothing. It stores what is known at once before it looks for the callers, which may fault or
//! hang when memory is in disorder: both then end the process as well. It never keeps the process
//! alive.

use std::{
    ffi::c_void,
    io, mem,
    ptr::null_mut,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use libc::{c_int, siginfo_t};

use super::record::{self, Essentials, MAX_FRAMES};
use crate::shared_memory::threads::{self, ThreadSlots};

/// Signals of faults; each ends a process unless it is handled.
pub(super) const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// Time for looking for the callers, in microseconds: their stack may be in disorder, or a lock
/// taken.
const TRACE_TIME_MICROSECONDS: libc::suseconds_t = 250_000;

/// Frames of the handler itself, at most: they are left out.
const OWN_FRAMES: usize = 8;

/// Where this process writes its last words.
static SLOTS: OnceLock<ThreadSlots> = OnceLock::new();

/// The process that writes there: a plugin may fork, and its child has another death.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Records the death of this process in this table from now on. For a worker, once, before it loads
/// any plugin; the first call counts.
///
/// # Errors
/// The system refuses a handler.
pub fn install(slots: &ThreadSlots) -> io::Result<()> {
    if SLOTS.set(slots.clone()).is_err() {
        return Ok(());
    }
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    // The first trace loads what it needs, which no handler could do.
    let mut frames = [null_mut(); 4];
    trace(&mut frames);
    for signal in FAULTS {
        handle(signal)?;
    }
    // SAFETY: the function lies in this program, which is never unmapped.
    match unsafe { libc::atexit(on_exit) } {
        0 => Ok(()),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

fn handle(signal: c_int) -> io::Result<()> {
    // SAFETY: a `sigaction` of zeros is one, and so is one with these fields filled in. The
    // handler has the type that `SA_SIGINFO` says. It touches atomic words and its own stack only.
    let installed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_fault;
        action.sa_sigaction = handler as libc::sighandler_t;
        // On the second stack that the standard library gives its threads: the first may be full.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for other in FAULTS {
            // A second fault of the same thread finds them blocked, and the kernel ends it.
            libc::sigaddset(&raw mut action.sa_mask, other);
        }
        libc::sigaction(signal, &raw const action, null_mut())
    };
    match installed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn this_thread() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// The words of this process; none in a child that a plugin has forked.
fn slots_of_this_process() -> Option<&'static ThreadSlots> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let is_ours = process.cast_unsigned() == PROCESS.load(Ordering::Relaxed);
    SLOTS.get().filter(|_| is_ours)
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    if let Some(slots) = slots_of_this_process() {
        let thread = this_thread();
        let place = record::of_faults(slots.crash_words());
        if !place.claim(thread) {
            wait_for_the_end();
        }
        let mut essentials = of_signal(signal, info, context);
        let mut inside = slots.inside();
        if let Some(inside) = inside.find(|inside| inside.thread == thread) {
            essentials.plugin = inside.plugin;
            essentials.activity = inside.activity as u64;
        }
        place.write(&essentials);
        end_soon();
        let mut frames = [null_mut(); MAX_FRAMES + OWN_FRAMES];
        let count = trace(&mut frames);
        let frames = frames[..count].iter().map(|frame| frame.addr() as u64);
        // The handler's own frames come first, then the instruction itself.
        let at = frames.clone().position(|it| it == essentials.instruction);
        place.write_frames(frames.skip(at.map_or(0, |at| at + 1)));
    }
    die_of(signal);
}

/// What the kernel says about a signal.
fn of_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> Essentials {
    // SAFETY: the kernel hands a handler with `SA_SIGINFO` both, and they last as long as it runs.
    let (info, context) = unsafe { (&*info, &*context.cast::<libc::ucontext_t>()) };
    let (instruction, stack) = registers(context);
    let mut essentials = Essentials {
        signal,
        code: info.si_code,
        instruction,
        stack,
        ..Essentials::default()
    };
    // What is above zero comes from the kernel, which says where; all else has a sender.
    if info.si_code > 0 {
        // SAFETY: a number is read that a signal of the kernel's has there, or another one.
        essentials.address = unsafe { info.si_addr() }.addr() as u64;
    } else {
        // SAFETY: as above, of a signal that a process sends.
        essentials.sender = unsafe { info.si_pid() }.cast_unsigned();
    }
    essentials
}

/// The instruction and the end of the stack.
fn registers(context: &libc::ucontext_t) -> (u64, u64) {
    #[cfg(target_arch = "x86_64")]
    let registers = {
        let of = |register: c_int| {
            let index = usize::try_from(register).unwrap_or(0);
            context.uc_mcontext.gregs[index].cast_unsigned()
        };
        (of(libc::REG_RIP), of(libc::REG_RSP))
    };
    #[cfg(target_arch = "aarch64")]
    let registers = (context.uc_mcontext.pc, context.uc_mcontext.sp);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let registers = {
        let _ = context;
        (0, 0)
    };
    registers
}

/// Return addresses of the callers, innermost first; how many there are.
fn trace(frames: &mut [*mut c_void]) -> usize {
    let length = c_int::try_from(frames.len()).unwrap_or(0);
    // SAFETY: it writes at most `length` addresses there.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), length) };
    usize::try_from(count).unwrap_or(0).min(frames.len())
}

/// Ends the process in [`TRACE_TIME_MICROSECONDS`], whatever happens until then.
fn end_soon() {
    let time = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: 0,
            tv_usec: TRACE_TIME_MICROSECONDS,
        },
    };
    by_default(libc::SIGALRM);
    // SAFETY: a system call with a value that outlives it.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const time, null_mut()) };
}

/// Another thread was first: it ends the process.
fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: it waits for a signal, and touches nothing.
        unsafe { libc::pause() };
    }
}

/// Lets a signal end the process, and this thread take it.
fn by_default(signal: c_int) {
    // SAFETY: structures of zeros are an action by default and an empty set; the calls may be made
    // in a handler, with values that outlive them.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &raw const action, null_mut());
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
    }
}

/// Ends the process by this signal, so that its exit status tells it.
fn die_of(signal: c_int) -> ! {
    by_default(signal);
    // SAFETY: both may be called in a handler; neither comes back.
    unsafe {
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

/// The code that the process ends with is not known here; the exit status tells it.
extern "C" fn on_exit() {
    let Some(slots) = slots_of_this_process() else {
        return;
    };
    let place = record::of_exits(slots.crash_words());
    if !place.claim(this_thread()) {
        return;
    }
    let mut essentials = Essentials::default();
    if let Some((plugin, activity)) = threads::last_inside_of_this_thread() {
        essentials.plugin = plugin;
        essentials.activity = activity as u64;
    }
    place.write(&essentials);
    let mut frames = [null_mut(); MAX_FRAMES];
    let count = trace(&mut frames);
    place.write_frames(frames[..count].iter().map(|frame| frame.addr() as u64));
}
