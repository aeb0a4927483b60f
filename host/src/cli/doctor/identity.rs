//! Who somebody is, and what the modes of files let them do. Access lists count as far as a mode shows
//! them.

use std::{
    ffi::CString,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User, getgrouplist};

/// What somebody wants to do with a file: one bit of each of the three digits of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read it, or list it.
    Read = 4,
    /// Write to it, or connect to it.
    Write = 2,
    /// Pass through a directory, or run a program.
    Pass = 1,
}

/// A user with the groups that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    user: u32,
    groups: Vec<u32>,
    name: String,
}

/// What keeps somebody from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) wish: Wish,
}

impl Identity {
    /// A user by name or number; none where there is no such user.
    pub(super) fn of_user(user: &str) -> Option<Self> {
        let found = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)).ok()?,
            Err(_) => User::from_name(user).ok()?,
        };
        match (found, user.parse()) {
            (Some(found), _) => {
                let name = CString::new(found.name.clone()).ok()?;
                let groups = getgrouplist(&name, found.gid).unwrap_or_else(|_| vec![found.gid]);
                Some(Self {
                    user: found.uid.as_raw(),
                    groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
                    name: found.name,
                })
            }
            (None, Ok(user)) => Some(Self {
                user,
                groups: Vec::new(),
                name: format!("user {user}"),
            }),
            (None, Err(_)) => None,
        }
    }

    /// Whose a process is; none where the system does not tell.
    pub(super) fn of_process(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let numbers = line.unwrap_or_default().split_whitespace();
            numbers.filter_map(|number| number.parse().ok()).collect()
        };
        // Real, effective, saved, of the file system.
        let user = *numbers("Uid:").get(1)?;
        let mut groups = numbers("Groups:");
        groups.extend(numbers("Gid:").get(1));
        let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
        Some(Self {
            user,
            groups,
            name: known.map_or_else(|| format!("user {user}"), |known| known.name),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What keeps them from a file: the first place on the way that they may not pass, or itself.
    pub(super) fn obstacle(&self, path: &Path, wish: Wish) -> Option<Obstacle> {
        let mut way: Vec<_> = path.ancestors().skip(1).collect();
        way.reverse();
        let way = way.into_iter().map(|place| (place, Wish::Pass));
        way.chain([(path, wish)]).find_map(|(place, wish)| {
            // What is not there is nobody's obstacle.
            let metadata = fs::metadata(place).ok()?;
            (!self.may(&metadata, wish)).then(|| Obstacle {
                path: place.to_owned(),
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
                group: metadata.gid(),
                wish,
            })
        })
    }

    fn may(&self, metadata: &Metadata, wish: Wish) -> bool {
        if self.user == 0 {
            return true;
        }
        let shift = if metadata.uid() == self.user {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() >> shift & wish as u32 != 0
    }
}

impl Obstacle {
    /// The place and its permissions.
    pub(super) fn said(&self) -> String {
        format!(
            "{} has mode {:04o} and belongs to user {}, group {}",
            self.path.display(),
            self.mode,
            self.owner,
            self.group
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_place_that_somebody_may_not_pass_is_what_keeps_them() {
        let directory = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = directory.path().join("socket");
        fs::write(&file, "").unwrap();
        let stranger = Identity {
            user: 4_711,
            groups: vec![4_711],
            name: "stranger".to_owned(),
        };
        let kept_by = |wish| stranger.obstacle(&file, wish).map(|found| found.path);
        set(directory.path(), 0o700);
        set(&file, 0o666);
        assert_eq!(kept_by(Wish::Write).as_deref(), Some(directory.path()));
        set(directory.path(), 0o711);
        assert_eq!(kept_by(Wish::Write), None);
        set(&file, 0o644);
        assert_eq!(kept_by(Wish::Write), Some(file.clone()));
        assert_eq!(kept_by(Wish::Read), None);
        let root = Identity::of_user("0").unwrap();
        assert_eq!(root.obstacle(&file, Wish::Write), None);
        assert!(Identity::of_user("nobody-of-this-name").is_none());
    }
}
