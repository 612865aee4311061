"""Problems with right answers."""
