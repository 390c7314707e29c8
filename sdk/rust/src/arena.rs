//! A guest's memory. Every call has a fresh instance, which ends with it, so the next free bytes of a fixed piece are the
//! quickest memory there is, and what is freed need not be found again.
//!
//! The piece is there for more than speed: without it the first allocation grows the instance's memory, and the server has
//! to ask its kernel twice per call to change what may be touched. What does not fit comes from the ordinary allocator.
#![expect(unsafe_code, reason = "an allocator is unsafe by its nature; each block says why it holds")]
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

/// What one call of an ordinary plugin uses, several times over. Untouched pages cost nothing.
const PIECE_BYTES: usize = 256 << 10;

#[repr(align(16))]
struct Piece(UnsafeCell<[u8; PIECE_BYTES]>);

struct Arena {
    piece: Piece,
    /// Everything from here on is free.
    free_from: Cell<usize>,
}

#[global_allocator]
static ARENA: Arena = Arena { piece: Piece(UnsafeCell::new([0; PIECE_BYTES])), free_from: Cell::new(0) };

// SAFETY: this module is built for wasm32 without threads only.
unsafe impl Sync for Arena {}

impl Arena {
    /// The place of memory within the piece; none: it is the ordinary allocator's.
    fn offset(&self, memory: *mut u8) -> Option<usize> {
        let offset = (memory as usize).checked_sub(self.piece.0.get() as usize)?;
        (offset < PIECE_BYTES).then_some(offset)
    }
}

// SAFETY: memory from the piece is handed out once, at the wanted alignment and within the piece: `free_from` only goes
// back over the newest allocation, when that is freed. The rest is the ordinary allocator's own contract.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.piece.0.get().cast::<u8>();
        let Some(begin) = (base as usize + self.free_from.get()).checked_next_multiple_of(layout.align()) else {
            return std::ptr::null_mut();
        };
        let begin = begin - base as usize;
        match begin.checked_add(layout.size()) {
            Some(end) if end <= PIECE_BYTES => {
                self.free_from.set(end);
                // SAFETY: `begin` is not beyond `end`, which is not beyond the piece.
                unsafe { base.add(begin) }
            }
            // SAFETY: the caller's layout, passed on.
            Some(_) | None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match self.offset(memory) {
            Some(offset) if offset + layout.size() == self.free_from.get() => self.free_from.set(offset),
            Some(_) => {}
            // SAFETY: it is not from the piece, so it is from there.
            None => unsafe { System.dealloc(memory, layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match self.offset(memory) {
            // A growing text or list is mostly the newest allocation: it grows where it is.
            Some(offset) if offset + layout.size() == self.free_from.get() && new_size <= PIECE_BYTES - offset => {
                self.free_from.set(offset + new_size);
                memory
            }
            Some(_) => {
                // SAFETY: the alignment is of a valid layout, and the caller vouches for the size.
                let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
                if !new.is_null() {
                    // SAFETY: both are as large as what is copied, and the old one is not handed out again.
                    unsafe { memory.copy_to_nonoverlapping(new, layout.size().min(new_size)) };
                }
                new
            }
            // SAFETY: it is not from the piece, so it is from there.
            None => unsafe { System.realloc(memory, layout, new_size) },
        }
    }
}
