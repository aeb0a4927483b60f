//! Stub.
use std::path::{Path,PathBuf}; use std::time::Instant; use super::discovery::{Candidate,Problem}; use super::metadata::{Digest,PluginName};
#[derive(Debug)] pub struct Scanner;
#[derive(Debug)] pub struct Place{pub path:PathBuf,pub name:PluginName,pub version:semver::Version,pub digest:Digest}
#[derive(Debug)] pub enum Seen{Unchanged(Place),Changed(Candidate)}
#[derive(Debug)] pub struct Scan{pub plugins:Vec<Seen>,pub problems:Vec<Problem>,pub unsettled:Vec<PathBuf>,pub directory_missing:bool}
impl Scanner{pub fn new(_d:&Path)->Self{Self} pub fn scan(&mut self,_w:impl Fn(&Path)->bool,_n:Instant)->Scan{unimplemented!()} pub fn forget(&mut self,_p:&Path){}}
