"""When a server that is busy wants to be asked again."""

import email.utils
import time


def retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, a number or a date (RFC 9110, section 10.2.3); 0 if it is neither."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
