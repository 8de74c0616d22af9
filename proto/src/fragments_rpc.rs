//! Rules of ListFragments and FragmentStoreHealth.

use crate::duration::{format_go, to_nanos};
use crate::invalid::{Invalid, Validate, ensure, validate_always, validate_present};
use crate::names::{Parents, check_journal};
use crate::protocol::{
    FragmentStoreHealthRequest, FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse,
    fragments_response,
};
use crate::status::check_journal_status;
use crate::store_url::StoreUrl;
use crate::token::check_path_component;
use crate::url_parts::split_url;

/// Fragments of one page of ListFragments at most.
pub const FRAGMENTS_PAGE_LIMIT_MAX: i32 = 10_000;

impl Validate for FragmentsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate_present("Header", self.header.as_ref())?;
        check_journal(&self.journal, Parents::Refuse).map_err(|e| e.within("Journal"))?;
        ensure!(
            self.end_mod_time == 0 || self.end_mod_time >= self.begin_mod_time,
            "invalid EndModTime ({} must be after {})",
            self.end_mod_time,
            self.begin_mod_time
        );
        ensure!(self.next_page_token >= 0, "invalid NextPageToken ({}; must be >= 0)", self.next_page_token);
        ensure!(
            (0..=FRAGMENTS_PAGE_LIMIT_MAX).contains(&self.page_limit),
            "invalid PageLimit ({}; must be >= 0 and <= {FRAGMENTS_PAGE_LIMIT_MAX})",
            self.page_limit
        );
        if self.signature_ttl.is_some() {
            let nanos = to_nanos(self.signature_ttl.as_ref()).map_err(|e| e.within("SignatureTTL"))?;
            ensure!(nanos > 0, "invalid SignatureTTL ({}; must be > 0s)", format_go(nanos));
        }
        Ok(())
    }
}

impl Validate for FragmentsResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        for (i, fragment) in self.fragments.iter().enumerate() {
            fragment.validate().map_err(|e| e.within(format!("Fragments[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for fragments_response::Fragment {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("Spec", self.spec.as_ref())?;
        split_url(&self.signed_url).map(|_parts| ()).map_err(|e| e.within("SignedUrl"))
    }
}

impl Validate for FragmentStoreHealthRequest {
    fn validate(&self) -> Result<(), Invalid> {
        StoreUrl::parse(&self.fragment_store).map_err(|e| e.within("FragmentStore"))?;
        let prefix = &self.check_delete_prefix;
        if prefix.is_empty() {
            return Ok(());
        }
        ensure!(self.check_delete, "unexpected CheckDeletePrefix without CheckDelete ({prefix})");
        let Some(directory) = prefix.strip_suffix('/') else {
            return Err(Invalid::new(format!("CheckDeletePrefix doesn't end in '/' ({prefix})")));
        };
        let ascends = directory == ".." || directory.starts_with("../");
        ensure!(!ascends, "CheckDeletePrefix cannot have a '..' element ({prefix})");
        check_path_component(directory, 1, 512).map_err(|e| e.within("CheckDeletePrefix"))
    }
}

impl Validate for FragmentStoreHealthResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        validate_always("Header", self.header.as_ref())
    }
}
