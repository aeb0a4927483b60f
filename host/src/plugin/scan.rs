//! Stub.
use super::discovery::{Candidate, Problem, discover};
use super::metadata::*;
use std::collections::*;
use std::path::{Path, PathBuf};
use std::time::Instant;
#[derive(Debug)]
pub struct Scanner {
    d: PathBuf,
    seen: BTreeMap<PathBuf, (Digest, Metadata)>,
    last: BTreeMap<PathBuf, (Digest, Metadata)>,
}
#[derive(Debug)]
pub struct Place {
    pub path: PathBuf,
    pub name: PluginName,
    pub version: semver::Version,
    pub digest: Digest,
}
#[derive(Debug)]
pub enum Seen {
    Unchanged(Place),
    Changed(Candidate),
}
#[derive(Debug)]
pub struct Scan {
    pub plugins: Vec<Seen>,
    pub problems: Vec<Problem>,
    pub unsettled: Vec<PathBuf>,
    pub directory_missing: bool,
}
impl Scanner {
    pub fn new(d: &Path) -> Self {
        Self {
            d: d.to_owned(),
            seen: Default::default(),
            last: Default::default(),
        }
    }
    pub fn scan(&mut self, _w: impl Fn(&Path) -> bool, _n: Instant) -> Scan {
        let x = discover(&self.d);
        let mut plugins = vec![];
        let mut cur = BTreeMap::new();
        for c in x.found {
            let k = (c.digest, c.metadata.clone());
            cur.insert(c.place.clone(), k.clone());
            if self.seen.get(&c.place) == Some(&k) {
                plugins.push(Seen::Unchanged(Place {
                    path: c.place.clone(),
                    name: c.metadata.name.clone(),
                    version: c.metadata.version.clone(),
                    digest: c.digest,
                }))
            } else if self.last.get(&c.place) == Some(&k) {
                self.seen.insert(c.place.clone(), k);
                plugins.push(Seen::Changed(c))
            }
        }
        self.last = cur;
        Scan {
            plugins,
            problems: vec![],
            unsettled: vec![],
            directory_missing: false,
        }
    }
    pub fn forget(&mut self, p: &Path) {
        self.seen.remove(p);
    }
}
