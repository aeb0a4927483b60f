//! What a process that runs plugins gives up first: new privileges, core dumps, and where the
//! operator says so the user that it was started as.
//!
//! Plugins have whatever rights their process has; this makes those fewer, and is no sandbox. Who
//! may change the files of plugins is `plugin::permissions`' affair.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::Path,
};

use nix::unistd::{Gid, Group, Uid, User, setgid, setgroups, setuid};
use rustix::process::{Resource, Rlimit};

/// What a worker gives up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Whom it becomes; none: it stays who it is.
    pub run_as: Option<RunAs>,
    /// Whether a crash may leave a dump of the process's memory.
    pub core_dumps: bool,
}

/// A user, and the one group that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    user: u32,
    group: u32,
}

/// A process cannot give up what it is told to: the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root becomes somebody else.
    #[error(
        "cannot run plugins as {wanted}: this host runs as user {user}, and only root can become another user; start it as root, or without --user and --group"
    )]
    NotRoot {
        /// Whom it should become.
        wanted: RunAs,
        /// Number of the user who runs it.
        user: u32,
    },
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl RunAs {
    /// Finds a user by name or number. Without a group it is that of the user's entry in the
    /// system's password database, where then there has to be one.
    ///
    /// ```
    /// use plugin_host::privileges::RunAs;
    ///
    /// assert_eq!(RunAs::find("4711", Some(4712)).unwrap().to_string(), "user 4711, group 4712");
    /// ```
    ///
    /// # Errors
    /// There is no such user, in words that follow the name of what was read.
    pub fn find(user: &str, group: Option<u32>) -> Result<Self, String> {
        let (user, own_group) = find_user(user)?;
        let group = group.or(own_group).ok_or_else(|| {
            format!("user {user} is not in the password database: name its group with --group")
        })?;
        Ok(Self { user, group })
    }

    /// Whether this process may become them.
    ///
    /// # Errors
    /// It may not: it is neither root's nor theirs.
    pub fn is_possible(self) -> Result<(), PrivilegeError> {
        let user = rustix::process::geteuid();
        if user.is_root() || self.is_us() {
            return Ok(());
        }
        Err(PrivilegeError::NotRoot {
            wanted: self,
            user: user.as_raw(),
        })
    }

    fn is_us(self) -> bool {
        rustix::process::geteuid().as_raw() == self.user
            && rustix::process::getegid().as_raw() == self.group
    }

    /// Makes this process theirs for good, on all of its threads, without the supplementary groups
    /// of whoever started it.
    fn take_over(self) -> Result<(), PrivilegeError> {
        self.is_possible()?;
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let failed = |action: &str| {
            let action = format!("{action} {self}");
            move |error: nix::Error| PrivilegeError::Io {
                action,
                source: error.into(),
            }
        };
        // The kernel forgets this signal when a process becomes another user's.
        let with_parent = rustix::process::parent_process_death_signal();
        setgroups(&[]).map_err(failed("leave root's groups for those of"))?;
        setgid(Gid::from_raw(self.group)).map_err(failed("take the group of"))?;
        setuid(Uid::from_raw(self.user)).map_err(failed("become"))?;
        with_parent
            .and_then(rustix::process::set_parent_process_death_signal)
            .map_err(|error| PrivilegeError::Io {
                action: "die with the parent process again".to_owned(),
                source: error.into(),
            })
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, group {}", self.user, self.group)
    }
}

/// Makes a directory of mode 0700 for a process that will run as somebody else, or as this one.
///
/// # Errors
/// It is there already, cannot be made, or cannot be given away.
pub fn make_directory(path: &Path, owner: Option<RunAs>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    owner.map_or(Ok(()), |owner| {
        chown(path, Some(owner.user), Some(owner.group))
    })
}

/// Gives up what these restrictions say. For a worker before it loads any plugin: what threads
/// there are keep part of what they have, those that begin afterwards do not.
///
/// # Errors
/// The process cannot become the user that it should, or the kernel knows nothing of this.
pub fn restrict_worker(restrictions: &Restrictions) -> Result<(), PrivilegeError> {
    let failed = |action: &'static str| {
        move |source| PrivilegeError::Io {
            action: action.to_owned(),
            source,
        }
    };
    forgo_new_privileges().map_err(failed("forgo new privileges"))?;
    if !restrictions.core_dumps {
        forgo_core_dumps().map_err(failed("forgo core dumps"))?;
    }
    restrictions.run_as.map_or(Ok(()), RunAs::take_over)
}

/// From now on no program that this thread or a later one starts gets more rights than they have,
/// set-user-ID or not.
///
/// # Errors
/// The kernel is older than this.
pub fn forgo_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// From now on a crash of this process leaves no dump: it would hold requests and secrets.
///
/// # Errors
/// The operating system refused.
pub fn forgo_core_dumps() -> io::Result<()> {
    let at_most = |bytes| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    // Less than any dump has, so that none is written to a file. A limit of 0 would still let one be
    // piped to a program (core_pattern); at exactly 1 the kernel starts none. Where the limit is 0
    // already and may not be raised, it stays.
    rustix::process::setrlimit(Resource::Core, at_most(1))
        .or_else(|_| rustix::process::setrlimit(Resource::Core, at_most(0)))?;
    Ok(())
}

fn find_user(user: &str) -> Result<(u32, Option<u32>), String> {
    let (number, entry) = match user.parse::<u32>() {
        Ok(number) => (Some(number), User::from_uid(Uid::from_raw(number))),
        Err(_) => (None, User::from_name(user)),
    };
    let entry = entry.map_err(|error| format!("`{user}` cannot be looked up: {error}"))?;
    match (entry, number) {
        (Some(entry), _) => Ok((entry.uid.as_raw(), Some(entry.gid.as_raw()))),
        (None, Some(number)) => Ok((number, None)),
        (None, None) => Err(format!("there is no user `{user}`")),
    }
}

/// Finds a group by name or number.
///
/// # Errors
/// There is no such group, in words that follow the name of what was read.
pub fn find_group(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse::<u32>() {
        return Ok(number);
    }
    Group::from_name(group)
        .map_err(|error| format!("`{group}` cannot be looked up: {error}"))?
        .map(|entry| entry.gid.as_raw())
        .ok_or_else(|| format!("there is no group `{group}`"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let nobody = RunAs::find("nobody", None).unwrap();
        let by_number = RunAs::find(&nobody.user.to_string(), Some(nobody.group));
        assert_eq!(by_number, Ok(nobody));
        assert_eq!(RunAs::find("nobody", Some(0)).unwrap().group, 0);
        assert_eq!(RunAs::find("root", None).unwrap().user, 0);
        assert_eq!((find_group("root"), find_group("4711")), (Ok(0), Ok(4711)));
    }

    #[test]
    fn a_user_or_group_that_is_not_there_is_named() {
        let check = |user, expected: &str| {
            assert_eq!(RunAs::find(user, None).unwrap_err(), expected);
        };
        check("no-such-user", "there is no user `no-such-user`");
        check(
            "4000000000",
            "user 4000000000 is not in the password database: name its group with --group",
        );
        assert_eq!(
            find_group("none"),
            Err("there is no group `none`".to_owned())
        );
    }

    #[test]
    fn whoever_is_not_root_becomes_nobody_else() {
        let us = RunAs {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        };
        us.is_possible().unwrap();
        let other = RunAs {
            user: us.user + 1,
            group: us.group,
        };
        assert_eq!(other.is_possible().is_ok(), us.user == 0);
    }
}
