//! Fragments: contiguous spans of a journal.

use crate::invalid::{Invalid, Validate, ensure};
use crate::names::{Parents, check_journal};
use crate::protocol::{Fragment, Sha1Sum};
use crate::status::check_codec;
use crate::token::{check_no_parent, check_path_component};

impl Fragment {
    /// The digest; zero where it is absent.
    pub fn sum_or_zero(&self) -> Sha1Sum {
        self.sum.unwrap_or(Sha1Sum::ZERO)
    }

    /// Bytes of content.
    pub fn content_length(&self) -> i64 {
        self.end.saturating_sub(self.begin)
    }
}

/// Store, modification time and sum are not checked.
impl Validate for Fragment {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal(&self.journal, Parents::Refuse).map_err(|e| e.within("Journal"))?;
        ensure!(self.begin <= self.end, "expected Begin <= End (have {}, {})", self.begin, self.end);
        check_codec(self.compression_codec)?;
        check_path_component(&self.path_postfix, 0, 512)
            .and_then(|()| check_no_parent(&self.path_postfix))
            .map_err(|e| e.within("PathPostfix"))
    }
}
