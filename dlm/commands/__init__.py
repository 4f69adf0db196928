"""One file a verb: joins the rooms below (the composition root)."""
