//! The gateway as the pipeline sees it: somebody who answers questions while a call is open.

use std::future::Future;

use super::questions::{Answer, Question};

/// Somebody who answers questions, one at a time.
pub trait Gateway: Send {
    /// Asks and waits for the answer. Dropping the future gives the question up; its answer, should
    /// it still come, is then nobody's.
    ///
    /// # Errors
    /// [`Gone`] where the connection has ended: then the call has, too.
    fn ask(&mut self, question: &Question) -> impl Future<Output = Result<Answer, Gone>> + Send;

    /// A plugin generation has the call from now on: should it end the process, it is known whose
    /// call that was. Not every gateway wants to know.
    fn passes_to(&mut self, _generation: u64) {}
}

/// The gateway has hung up, or its bytes make no sense any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;
