//! Tells the supervisor how it stands with this worker: whether it knows what serves, which required
//! plugins do not, and what replaced ones have left behind.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::attachment::Told;
use crate::{
    link::{Condition, ToSupervisor},
    plugin::{
        manager::Manager,
        registry::{Requested, Snapshot},
    },
};

/// Tells it whenever it changes. `knows` is whether an earlier worker knew what serves; `settled` is
/// ready when the first look at the plugin directory has ended.
pub(super) async fn keep_told(
    manager: Arc<Manager>,
    require: Vec<Requested>,
    mut knows: bool,
    settled: impl Future<Output = ()>,
    tell: mpsc::UnboundedSender<Told>,
) {
    let mut snapshots = manager.registry().subscribe();
    let (_, mut retired) = manager.retired_mappings();
    let mut settled = std::pin::pin!(settled);
    let mut is_settled = false;
    let mut told = None;
    loop {
        let snapshot = manager.registry().current();
        let (retired_mappings, _) = manager.retired_mappings();
        let condition = Condition {
            scanned: knows,
            missing: missing(&require, &snapshot),
            retired_mappings,
            retired_bytes: *retired.borrow_and_update(),
        };
        if told.as_ref() != Some(&condition) {
            told = Some(condition.clone());
            let message = ToSupervisor::Condition(condition);
            if tell.send(message.into()).is_err() {
                return;
            }
        }
        tokio::select! {
            () = &mut settled, if !is_settled => {
                is_settled = true;
                knows = true;
            }
            changed = snapshots.changed() => if changed.is_err() {
                return;
            },
            changed = retired.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

fn missing(require: &[Requested], snapshot: &Snapshot) -> Vec<String> {
    let errors = require
        .iter()
        .filter_map(|requested| snapshot.resolve(requested).err());
    errors.map(|missing| missing.to_string()).collect()
}
