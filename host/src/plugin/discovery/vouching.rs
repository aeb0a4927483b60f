//! Whether somebody whom the operator trusts vouches for a plugin: the signature beside the file that
//! stands for all of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Cause, Discovery, files};
use crate::plugin::{
    metadata::{Digest, FILE_NAME},
    signature::{Policy, Signature, beside},
};

/// The signature of a file of its own, where there is one.
pub(in crate::plugin) fn signature_of(file: &Path) -> Option<PathBuf> {
    let path = beside(file);
    path.symlink_metadata().is_ok().then_some(path)
}

/// What the file beside a plugin's is worth.
#[derive(Debug, Default)]
pub(super) struct Vouched {
    /// Who vouches; none where nobody wants to know.
    pub(super) signature: Option<Signature>,
    /// Digest of the signature's file.
    pub(super) file: Option<Digest>,
}

impl Discovery {
    /// Who vouches for a file with these bytes. `is_whole` says whether the file stands for everything
    /// that is loaded.
    ///
    /// # Errors
    /// Somebody has to, and nobody does.
    pub(super) fn vouched_for(
        &mut self,
        file: &Path,
        bytes: &[u8],
        is_whole: bool,
    ) -> Result<Vouched, Cause> {
        if !self.trust.is_on() {
            return Ok(Vouched::default());
        }
        let directory = file.parent().unwrap_or(Path::new("."));
        let path = beside(file);
        let name = path.file_name().unwrap_or_default();
        let read = match files::read_signature(directory, Path::new(name)) {
            Ok(read) => Some(read),
            Err(Cause::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(cause),
        };
        let digest = read.as_deref().map(Digest::of);
        self.read.extend(digest.map(|digest| (path, digest)));
        let signature = match self.trust.judge(bytes, read.as_deref()) {
            Signature::Signed(signer) if !is_whole => Signature::Invalid {
                reason: format!(
                    "it is over {FILE_NAME}, which does not pin its library: write `source.sha256`"
                ),
                key_id: Some(signer.key_id),
            },
            signature => signature,
        };
        match self.trust.admit(&signature) {
            Ok(()) => Ok(Vouched {
                signature: Some(signature),
                file: digest,
            }),
            Err(refused) => Err(Cause::Signature(Box::new(refused))),
        }
    }

    /// Whether a plugin that was found may be half of something: its signature is that of another
    /// version, which may be on its way. Where signatures are required, that is a problem anyway.
    pub(in crate::plugin) fn waits_for_a_signature(&self) -> bool {
        let signatures = self.found.iter().map(|found| &found.signature);
        self.trust.policy() == Policy::Warn
            && signatures
                .flatten()
                .any(|it| matches!(it, Signature::Modified(_)))
    }
}
