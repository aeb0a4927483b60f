//! The ways in which bytes go wrong, with a generator whose numbers are the same in every run.

/// Damages bytes in one of the ways in which bytes go wrong; `others` is where foreign pieces come from.
pub(crate) fn damage(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let place = random.below(bytes.len());
    match random.below(9) {
        0 => bytes[place] ^= 1 << random.below(8),
        1 => bytes[place] = random.next() as u8,
        2 => bytes.truncate(place),
        // A number inside the message: lengths, offsets and layouts are all of four or two bytes.
        3 => write_number(bytes, place & !3, &(random.next() as u32).to_le_bytes()),
        4 => {
            let near = [
                0,
                1,
                2,
                3,
                4,
                8,
                0x7F,
                0xFF,
                0x7FFF_FFFF,
                0x8000_0000,
                u32::MAX,
                bytes.len() as u32,
            ];
            write_number(
                bytes,
                place & !3,
                &near[random.below(near.len())].to_le_bytes(),
            );
        }
        5 => write_number(bytes, place & !1, &(random.below(64) as u16).to_le_bytes()),
        // Something points, or reaches, a little further or not so far.
        6 => {
            let place = place & !3;
            if let Some(number) = bytes[place..].first_chunk_mut() {
                let by = random.below(65) as u32;
                *number = u32::from_le_bytes(*number)
                    .wrapping_add(by.wrapping_sub(32))
                    .to_le_bytes();
            }
        }
        // Something points to another part, of whatever kind.
        7 => {
            let from = place & !3;
            let to = random.below(bytes.len());
            let distance = (to as u32).wrapping_sub(from as u32);
            write_number(bytes, from, &distance.to_le_bytes());
        }
        _ => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len());
            let piece = &other[from..(from + 1 + random.below(64)).min(other.len())];
            let end = if random.below(2) == 0 {
                place
            } else {
                (place + piece.len()).min(bytes.len())
            };
            bytes.splice(place..end, piece.iter().copied());
        }
    }
}

fn write_number(bytes: &mut [u8], place: usize, number: &[u8]) {
    for (byte, new) in bytes[place..].iter_mut().zip(number) {
        *byte = *new;
    }
}

/// The xorshift generator: the same numbers in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }
}
