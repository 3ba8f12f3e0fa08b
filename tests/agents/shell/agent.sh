# Does what it is told, in a shell: the means by which tests look out of a sandbox.
while IFS= read -r line; do
    (eval "$line") 2>&1 || echo "failed: $?"
done
