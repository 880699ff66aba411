"""Parts of HTTP that know no resource."""
