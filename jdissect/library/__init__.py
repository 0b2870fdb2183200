"""What `import jdissect` gives: dissections and their results, for notebooks."""
