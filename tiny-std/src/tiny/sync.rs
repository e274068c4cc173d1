//! Locks, where there is one thread.

use core::cell::{RefCell, RefMut};
use core::convert::Infallible;

pub type MutexGuard<'m, T> = RefMut<'m, T>;

/// Never has two holders; a second would be a mistake of the program, and ends it.
#[derive(Default)]
pub struct Mutex<T>(RefCell<T>);

impl<T> Mutex<T> {
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
        Ok(self.0.borrow_mut())
    }
}

/// Never happens: who panics ends the program.
pub struct PoisonError<G>(Infallible, core::marker::PhantomData<G>);

impl<G> PoisonError<G> {
    pub fn into_inner(self) -> G {
        match self.0 {}
    }
}
